"""The poster page: every method is one expression over five coordinates (source, signal, credit, objective, reference).

A function of the modules here returns a `Method`; its keyword parameters are the method's hyper-parameters in an experiment file,
its docstring says what it is, from which paper, and what it reduces to; `python -m evenhand.manual` makes
docs/methods.md of it. `steps` and `max_tokens`, where a method asks for them, come from the experiment.
"""

# isort: off
from evenhand.methods import offline, offline_margins, offline_sides, offline_lengths, offline_steps
from evenhand.methods import reward_heads
from evenhand.methods import moving
from evenhand.methods import gradients, groups, advantages, surrogates, selections, distillation, rated, refused

# isort: on
from evenhand.train.method import (
    BINARY,
    COMPARISONS,
    DEMONSTRATIONS,
    METHODS,
    PREFERENCES,
    PROMPTS,
    RATED,
    Method,
    build,
    method,
)  # fmt: skip

__all__ = [
    "BINARY", "COMPARISONS", "DEMONSTRATIONS", "METHODS", "PREFERENCES", "PROMPTS", "RATED", "Method", "advantages",
    "build", "distillation", "gradients", "groups", "method", "moving", "offline", "offline_lengths", "offline_margins",
    "offline_sides", "offline_steps", "rated", "refused", "reward_heads", "selections", "surrogates",
]  # fmt: skip
