"""`evenhand tune`: every arm gets the same number of trials, on seeds and prompts that the comparison never uses."""
