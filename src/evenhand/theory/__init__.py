"""What the mathematics promises, measured: closed-form optima and equivalence theorems on problems small enough to enumerate.

`table()` computes every claim afresh, in float64, in seconds and without a model; each row says what was expected, what was
measured, and whether it holds. The objectives under test are those of `evenhand.core`, the very ones that train models.
"""

from evenhand.theory.rows import TheoryRow, table

__all__ = ["TheoryRow", "table"]
