"""Environments by name: `environment: {kind: calculator, turns: 4}`, with the limits that hold for every kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from evenhand.environments import calculator, verifiers_adapter
from evenhand.errors import UserError
from evenhand.protocols import Environment
from evenhand.registry import Registry

NONE = "none"
"""No environment, where all other arms have one: answers of a single turn."""
Settings = str | Mapping[str, Any]
"""A kind, or `{kind: ..., turns: ..., ...}`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentContext:
    """What an environment may use: a `seed` of this answer's own, for one that draws random numbers."""

    seed: int = 0


ENVIRONMENTS = Registry[Callable[..., Environment]]("environment", named_by=("environment", "kind"))
"""Kind -> `builder(context, **settings)`, called for every answer; the builder's signature is the schema."""
environment = ENVIRONMENTS.register
"""Decorator: the builder below makes the environment of that kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnLimits:
    """How long an answer may go on, whatever its environment. The limit of the whole answer is `lengths.completion`: the tokens
    of all turns, the environment's among them."""

    turns: int = 4
    """The model's turns in one answer, at most."""
    turn_tokens: int = 0
    """Tokens of one turn of the model, at most; 0: as many as the answer has left."""
    seconds: float = 10.0
    """What the environment may take for one step, before it is given up for this answer."""

    def problems(self) -> dict[str, str]:
        """Faults by key."""
        wrong = {"turns": self.turns < 1, "turn_tokens": self.turn_tokens < 0, "seconds": not self.seconds > 0}
        return {key: "use a positive number" for key, bad in wrong.items() if bad}


def limits_of(settings: Settings) -> TurnLimits:
    """The limits among the settings."""
    given = {} if isinstance(settings, str) else settings
    return TurnLimits(**{f.name: given[f.name] for f in fields(TurnLimits) if f.name in given})


def own_settings(settings: Settings) -> Settings:
    """The settings without the limits: what the builder is given."""
    limits = {f.name for f in fields(TurnLimits)}
    return settings if isinstance(settings, str) else {k: v for k, v in settings.items() if k not in limits}


def chosen(own: Settings | None, shared: Settings | None) -> Settings | None:
    """One's own environment, or else the shared one; None for NONE.

    >>> chosen(None, "calculator"), chosen("none", "calculator")
    ('calculator', None)
    """
    found = shared if own is None else own
    return None if found == NONE else found


def check(settings: Settings, *, where: str) -> None:
    """Raises UserError for an unknown kind or key, and for a limit out of its range."""
    if settings == NONE:
        return
    ENVIRONMENTS.check(own_settings(settings), where=where)
    given = {} if isinstance(settings, str) else settings
    for field in fields(TurnLimits):
        value = given.get(field.name, field.default)
        kind, named = (int | float, "a number") if field.name == "seconds" else (int, "a whole number")
        if isinstance(value, bool) or not isinstance(value, kind):
            raise UserError(f"{value!r} is not {named}", where=f"{where}.{field.name}", fix=f"give {named}")
    for key, fix in limits_of(settings).problems().items():
        raise UserError(f"{key} is {given[key]}", where=f"{where}.{key}", fix=fix)


def build(settings: Settings, *, seed: int) -> Environment:
    """A fresh environment for one answer."""
    made: Environment = ENVIRONMENTS.build(own_settings(settings), EnvironmentContext(seed=seed), where="environment")
    return made


@environment("calculator")
def _calculator(
    context: EnvironmentContext, form: calculator.Form = "tags", role: str = "tool", cost: float = 0.0
) -> Environment:
    """`form`: how it is called; `role`: whose turns its results are; `cost`: what each call takes off the reward."""
    return calculator.Calculator(form=form, role=role, cost=cost)


@environment("verifiers")
def _verifiers(context: EnvironmentContext, id: str, options: Mapping[str, Any] | None = None) -> Environment:
    """`id`: what `verifiers.load_environment` is given; `options`: its keyword arguments."""
    return verifiers_adapter.VerifiersEnvironment(verifiers_adapter.load(id, options or {}))
