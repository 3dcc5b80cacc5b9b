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

        if e.engine.get("load_by") == "adapter":
            yield from _adapter_problems(e)
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


def _adapter_problems(e: Experiment) -> Iterator[UserError]:
    """Why arms are no adapters that one server could keep beside its base."""
    why = "with `engine: {load_by: adapter}` the server keeps its base, and is given an adapter of low rank for each arm"
    instead = "or use `load_by: reload`"
    arms = {name: arm for name, arm in e.all_arms().items() if arm.trained}
    for name, arm in arms.items():
        where, adapter = f"arms.{name}.train.adapter", arm.train.adapter
        if adapter is None:
            fix = f"give the arm an adapter (`train: {{adapter: {{rank: 16}}}}`), {instead}"
            yield UserError("this arm trains all weights", where=where, why=why, fix=fix)
            continue
        odd = {
            "form": adapter.form != "lora", "quantize": adapter.quantize is not None,
            "modules_to_save": bool(adapter.modules_to_save),
        }  # fmt: skip
        for key in (key for key, found in odd.items() if found):
            yield UserError(f"`{key}` changes more than that", where=f"{where}.{key}", why=why, fix=f"remove it, {instead}")
    starts = {arm.initial_policy: name for name, arm in arms.items()}
    if len(starts) > 1:
        one, two, *_ = starts.items()
        yield UserError(
            f"{one[1]} starts from {one[0]}, {two[1]} from {two[0]}", where="engine.load_by", why=why,
            fix=f"let all arms start from what the server was started with, {instead}",
        )  # fmt: skip
    sft = e.sft_arm()
    if sft is not None and sft.train.adapter is not None and "sft" in starts:
        yield UserError("the arms' start is an adapter itself", where="sft.train.adapter", why=why, fix=f"remove it, {instead}")
