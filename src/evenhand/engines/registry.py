"""Engines by name: `engine: {kind: local}` in an experiment, and one function that opens it wherever something is sampled."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evenhand.engines.checks import Renders
from evenhand.errors import UserError, one_of
from evenhand.protocols import Engine
from evenhand.registry import Registry

if TYPE_CHECKING:
    from evenhand.engines.local import HasModel, LocalEngine
    from evenhand.engines.synced import InferenceBackend

DEFAULT = "local"
"""The engine where no experiment names one: in a command that is given a model alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineContext:
    """What an engine samples from: the policy as it is at the moment of the call, and its renderer (template and tokenizer)."""

    policy: HasModel
    renderer: Renders


LOAD_BY = ("reload", "adapter", "nothing")
"""How a server gets an arm's weights: in place of its own, as an adapter beside its base, or never."""
ENGINES = Registry[Callable[..., Engine]]("engine", facts=("exact", "how", "copies"), named_by=("engine", "kind"))
"""Kind -> `builder(opened, **settings)`; the builder's signature is the schema. `exact`: it samples with the very weights and
kernels of the trainer, so that in float32 its log-probs are the trainer's to rounding; of all others they are recomputed. `how`:
settings that say how answers are got and not what they are, which enter no key. `copies`: it holds a copy of the arms' network,
which is given to it, and no other, as a judge's."""
engine = ENGINES.register
"""Decorator: the builder below makes the engine of that kind."""


@engine("local", exact=True)
def _local(opened: EngineContext) -> Engine:
    return local_engine(opened.policy, opened.renderer)


@engine("server", how=("url", "model", "key_env", "timeout", "attempts", "concurrency", "restarts", "tolerance", "folder"),
        copies=True)  # fmt: skip
def _server(
    opened: EngineContext,
    *,
    model: str,
    url: str = "http://127.0.0.1:8000/v1",
    load_by: str = "reload",
    folder: str | None = None,
    tolerance: float | None = None,
    key_env: str = "",
    timeout: float = 600.0,
    attempts: int = 8,
    concurrency: int = 64,
    restarts: int = 2,
) -> Engine:
    """A server with OpenAI's /completions and vLLM's token ids, given the weights as they change."""
    from evenhand.engines.adapter_server import AdapterServer, export_adapter
    from evenhand.engines.server import ServerBackend

    one_of("load_by", load_by, LOAD_BY, where="engine")
    how: dict[str, Any] = {"url": url, "key_env": key_env, "timeout": timeout, "attempts": attempts, "concurrency": concurrency}
    synced: dict[str, Any] = {"tolerance": tolerance, "restarts": restarts, "folder": folder}
    if load_by == "adapter":
        return _synced(opened, AdapterServer(model=model, **how), hand_over=export_adapter, **synced)
    return _synced(opened, ServerBackend(model=model, load_by=load_by, **how), **synced)


@engine("vllm", how=("restarts", "tolerance", "folder"), copies=True)
def _vllm(
    opened: EngineContext,
    *,
    options: Mapping[str, Any] | None = None,
    folder: str | None = None,
    tolerance: float | None = None,
    restarts: int = 2,
) -> Engine:
    """vLLM in the process that trains, given the weights as they change."""
    from evenhand.engines.vllm import VLLMBackend

    hf = opened.policy.hf
    # Left to itself vLLM computes in bfloat16 what is in float32.
    settled = {"dtype": str(hf.dtype).removeprefix("torch."), **(options or {})}
    network = {name: value for name, value in hf.config.to_dict().items() if name not in _OF_A_FILE}
    known = json.dumps([settled, network], sort_keys=True, default=str)
    if known not in _OPENED:
        _OPENED[known] = VLLMBackend(options=settled)
    return _synced(opened, _OPENED[known], tolerance=tolerance, restarts=restarts, folder=folder)


_OF_A_FILE = ("architectures", "dtype", "transformers_version", "_name_or_path")
"""What a config says of where it was written, or what is settled with the options: saving it changes them."""
_OPENED: dict[str, InferenceBackend] = {}
"""vLLM of this process by options and the model's config: half a minute to open, and memory for a copy of the weights."""


def _synced(opened: EngineContext, backend: InferenceBackend, **how: Any) -> Engine:
    from evenhand.engines.synced import SyncedEngine

    if how["folder"] is not None and not Path(how["folder"]).is_dir():
        fix = "make it, on a disk that the engine sees too"
        raise UserError(f"there is no folder {how['folder']}", where="engine.folder", fix=fix)
    for name, least in (("tolerance", 0.0), ("restarts", 0)):
        if how[name] is not None and not how[name] >= least:
            raise UserError(f"{name} is {how[name]}", where=f"engine.{name}", fix=f"use {least} or more")
    return SyncedEngine(policy=opened.policy, renderer=opened.renderer, backend=backend, **how)


def decides(settings: str | Mapping[str, Any]) -> str | Mapping[str, Any]:
    """What of an engine's settings decides its answers: its kind alone, or with the settings that are no `how`.

    >>> decides({"kind": "server", "url": "http://127.0.0.1:9000/v1", "model": "m"}), decides({"kind": "local"}), decides("local")
    ('server', 'local', 'local')
    """
    if isinstance(settings, str):
        return settings
    how = _fact(settings, "how") or ()
    kept = {name: value for name, value in settings.items() if name not in how}
    return kept["kind"] if kept.keys() == {"kind"} else kept


def access(settings: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """The other settings: how its answers are got.

    >>> access({"kind": "server", "url": "http://127.0.0.1:9000/v1"}), access("local")
    ({'url': 'http://127.0.0.1:9000/v1'}, {})
    """
    if isinstance(settings, str):
        return {}
    how = _fact(settings, "how") or ()
    return {name: value for name, value in settings.items() if name in how}


def holds_copy(settings: str | Mapping[str, Any]) -> bool:
    """Whether the engine samples from a copy of the policy, which is handed to it."""
    return bool(_fact(settings, "copies"))


def for_other_models(settings: str | Mapping[str, Any]) -> str | Mapping[str, Any]:
    """What samples a network that is none of the arms': the same engine; where that holds a copy, the one in this process."""
    return DEFAULT if holds_copy(settings) else settings


def is_exact(settings: str | Mapping[str, Any]) -> bool:
    """Whether the engine's log-probs are the trainer's own in float32. An engine of a plugin's says so by `exact=True`."""
    return bool(_fact(settings, "exact"))


def _fact(settings: str | Mapping[str, Any], name: str) -> Any:
    kind = settings if isinstance(settings, str) else settings.get("kind", "")
    return ENGINES.facts(name).get(ENGINES.canonical(kind))


def local_engine(policy: HasModel, renderer: Renders) -> LocalEngine:
    """The sampler inside this process, for who needs more of it than an `Engine`: tokens while they are drawn."""
    from evenhand.engines.local import LocalEngine

    return LocalEngine(policy, renderer)


def open_engine(settings: str | Mapping[str, Any], policy: HasModel, renderer: Renders) -> Engine:
    """The engine of those settings on a policy. Raises: UserError for an unknown name or setting."""
    made: Engine = ENGINES.build(settings, EngineContext(policy=policy, renderer=renderer), where="engine")
    return made
