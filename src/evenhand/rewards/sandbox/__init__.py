"""A cage for programs that a model wrote. What runs inside is started as a script, with the standard library alone."""
