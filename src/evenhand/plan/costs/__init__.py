"""What a plan will cost, said before it is run: memory, time, tokens and disk of every stage, from shapes and a short probe."""
