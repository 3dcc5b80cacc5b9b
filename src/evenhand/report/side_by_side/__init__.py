"""Several runs on one page, and in one table for a terminal."""
