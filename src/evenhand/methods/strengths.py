"""How strongly a method is held back: the values that papers and released code used, for the search spaces beside the methods."""

from collections.abc import Mapping
from typing import Any

BETA: Mapping[str, Any] = {"beta": (0.01, 0.03, 0.1, 0.3, 0.5)}
TAU: Mapping[str, Any] = {"tau": {"log": (0.01, 1.0)}}
KL: Mapping[str, Any] = {"kl": {"log": (0.01, 0.2)}}
WEAK: Mapping[str, Any] = {"beta": (0.001, 0.003, 0.01, 0.03, 0.1)}
"""Of losses that ask for a log-ratio of 1 / (2 beta) nats, or whose authors ran them at 0.01 or below."""
PER_TOKEN: Mapping[str, Any] = {"beta": (1.0, 2.0, 2.5, 5.0, 10.0)}
"""Of losses of length-means: a margin per token is smaller by the answer's length."""
