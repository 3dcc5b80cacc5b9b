"""Faults of the sampler's settings that can be seen without it."""

from __future__ import annotations

from collections.abc import Iterator

from evenhand.engines.registry import holds_copy
from evenhand.errors import UserError
from evenhand.spec.experiment import Experiment


def engine_problems(e: Experiment) -> Iterator[UserError]:
    """A server's address and limits, and ranks that would all give it weights."""
    if not holds_copy(e.engine):
        return
    kind = e.engine if isinstance(e.engine, str) else e.engine["kind"]
    if kind == "server" and not isinstance(e.engine, str):
        from evenhand.engines.server import ServerBackend

        known = {"url", "key_env", "timeout", "attempts", "concurrency"}
        try:
            ServerBackend(model=str(e.engine["model"]), **{k: v for k, v in e.engine.items() if k in known})
        except UserError as error:
            yield error
        except (TypeError, KeyError):
            return  # a missing or an unknown key is said by whoever checks names
    if e.runtime.ranks > 1:
        yield UserError(
            f"`engine: {kind}` with {e.runtime.ranks} ranks", where="runtime.ranks",
            why="each rank samples its share, and would give the engine weights of its own",
            fix="use `engine: local`, which all ranks sample with, or `ranks: 1`",
        )  # fmt: skip
