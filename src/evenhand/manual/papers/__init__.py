"""docs/papers.md, from a table in code: `python -m evenhand.manual.papers docs/papers.md` writes it anew."""
