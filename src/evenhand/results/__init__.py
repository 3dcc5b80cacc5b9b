"""What came out of a run: one typed record, `results.json`; how it is assembled from artifacts, written and read."""

from evenhand.results.files import load
from evenhand.results.record import Results

__all__ = ["Results", "load"]
