"""Pages for one person or a few on this machine: a loopback address with a token, and nothing that leaves it."""
