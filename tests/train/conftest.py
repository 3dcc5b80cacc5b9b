"""Files that stand for a user's are read by the test that is about them, never when doctests are looked for."""

collect_ignore = ["outside"]
