"""Arms as adapters on one base behind a server: each policy is a LoRA of its own there, beside the others.

Of vLLM's additions it uses `POST URL/load_lora_adapter` and `URL/unload_lora_adapter` (`VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`,
`--enable-lora`). What it was tried with stands in docs/engines.md.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from evenhand.engines.server import ServerBackend
from evenhand.engines.synced import EngineDied, this_process
from evenhand.judges.address import joined
from evenhand.models import adapter_files, adapter_models
from evenhand.models.artifacts import readable_by_all
from evenhand.models.decode import not_a_number

if TYPE_CHECKING:
    from evenhand.models.backbone import Trunk

_NUMBERS = count()
_REFUSES = (400, 500)
"""How vLLM says that an adapter is none that it can serve: a rank above its own, a layer that it lacks."""


def export_adapter(policy: Trunk, folder: Path) -> None:
    """What `policy` learned by an adapter, alone and in peft's format; an empty folder for a policy that is the base itself.

    A policy that was read from an adapter's folder, where it is merged, is handed over as that adapter.
    """
    folder.mkdir(parents=True)
    if policy.adapter is not None:
        if not all(bool(weight.isfinite().all()) for weight in policy.parameters() if weight.requires_grad):
            raise not_a_number()
        adapter_files.write(policy, folder, start=folder, name="base")
    elif (known := adapter_models.read_from(policy.hf)) is not None:
        for name in (adapter_files.CONFIG, adapter_files.WEIGHTS):
            shutil.copyfile(known / name, folder / name)


@dataclass(kw_only=True)
class AdapterServer(ServerBackend):
    """A server that keeps its base. Every process names its own adapters, so that arms sample side by side and none waits.

    An adapter's folder is kept as long as the server may read it again: until the next one is loaded, or the process ends.
    """

    _kept: TemporaryDirectory[str] | None = field(default=None, init=False, repr=False)
    _named: str = field(default="", init=False)
    _version: str = field(default="", init=False)

    @property
    @override
    def holds(self) -> str:
        return self._version

    @override
    @contextmanager
    def alone(self) -> Iterator[None]:
        yield

    @override
    def load(self, folder: Path, version: str) -> None:
        before = self._named
        self.restart()
        if before:
            self._tell("unload_lora_adapter", {"lora_name": before}, takes=(200, 404))  # 404: it was started again since
        if (folder / adapter_files.CONFIG).is_file():
            self._kept = TemporaryDirectory(prefix="adapter-", dir=folder.parent.parent)
            path = Path(shutil.copytree(folder, Path(self._kept.name) / version))
            readable_by_all(Path(self._kept.name))
            name = f"{this_process()}-{next(_NUMBERS)}"
            self._tell("load_lora_adapter", {"lora_name": name, "lora_path": str(path)}, refuses=_REFUSES)
            self._named = name
        self._version = version

    @override
    def restart(self) -> None:
        self._named = self._version = self._trouble = ""
        if self._kept is not None:
            self._kept.cleanup()
            self._kept = None

    @override
    def _served(self) -> str:
        return self._named or self.model

    def _tell(self, route: str, body: Mapping[str, Any], **statuses: Sequence[int]) -> None:
        with self._client() as client:
            self._patiently(partial(self._post, client, joined(self.url, route), body, **statuses))
        if self._trouble:
            raise EngineDied(self._trouble)

    @override
    def _refused(self, address: str, status: int, said: str) -> Exception:
        if status == 404 and self._named and address.endswith("/completions"):
            return EngineDied("it no longer has the adapter that it was given")
        return super()._refused(address, status, said)

    @override
    def _fix(self, address: str, status: int) -> str:
        if address.endswith("/completions"):
            return super()._fix(address, status)
        return (
            "start vLLM's server with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True in its environment, `--enable-lora` and a "
            "`--max-lora-rank` of at least the arms' rank, on an address that only you reach; or use `load_by: reload`"
        )
