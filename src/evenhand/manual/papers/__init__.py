"""docs/papers.md, from a table in code: `python -m evenhand.manual` writes it anew."""
