"""How strongly a method is held back: the values that papers and released code used, for the search spaces beside the methods."""

from collections.abc import Mapping
from typing import Any

BETA: Mapping[str, Any] = {"beta": (0.01, 0.03, 0.1, 0.3, 0.5)}
TAU: Mapping[str, Any] = {"tau": {"log": (0.01, 1.0)}}
KL: Mapping[str, Any] = {"kl": {"log": (0.01, 0.2)}}
