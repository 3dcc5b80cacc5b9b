"""Engines by name: `engine: {kind: local}` in an experiment, and one function that opens it wherever something is sampled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evenhand.engines.checks import Renders
from evenhand.protocols import Engine
from evenhand.registry import Registry

if TYPE_CHECKING:
    from evenhand.engines.local import HasModel, LocalEngine

DEFAULT = "local"
"""The engine where no experiment names one: in a command that is given a model alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineContext:
    """What an engine samples from: the policy as it is at the moment of the call, and its renderer (template and tokenizer)."""

    policy: HasModel
    renderer: Renders


ENGINES = Registry[Callable[..., Engine]]("engine", named_by=("engine", "kind"))
"""Kind -> `builder(opened, **settings)`; the builder's signature is the schema."""
engine = ENGINES.register
"""Decorator: the builder below makes the engine of that kind."""


@engine("local")
def _local(opened: EngineContext) -> Engine:
    return local_engine(opened.policy, opened.renderer)


def local_engine(policy: HasModel, renderer: Renders) -> LocalEngine:
    """The sampler inside this process, for who needs more of it than an `Engine`: tokens while they are drawn."""
    from evenhand.engines.local import LocalEngine

    return LocalEngine(policy, renderer)


def open_engine(settings: str | Mapping[str, Any], policy: HasModel, renderer: Renders) -> Engine:
    """The engine of those settings on a policy. Raises: UserError for an unknown name or setting."""
    made: Engine = ENGINES.build(settings, EngineContext(policy=policy, renderer=renderer), where="engine")
    return made
