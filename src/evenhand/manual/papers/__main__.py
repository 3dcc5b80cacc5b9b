"""`python -m evenhand.manual.papers docs/papers.md`."""

import sys
from pathlib import Path

from evenhand.manual.papers.page import page

if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
