"""A network in parts is written by the ranks that hold them, a layer at a time: the same bytes as of one process."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from evenhand.models.adapter_config import Adapter
from evenhand.models.adapter_layers import adapted
from evenhand.models.adapter_models import save_adapted
from evenhand.models.adapters import attach, networks
from evenhand.models.backbone import Trunk
from evenhand.models.layer_turns import shards
from evenhand.models.save import save
from evenhand.models.sharding import but_layers
from evenhand.models.spread_save import at_hand, laid_out
from evenhand.train.ranks import Ranks
from tests.battery import variants
from tests.battery.world import CONFIG, network
from tests.ranks.two import on_ranks

EXPERTS = {**CONFIG, "model_type": "mixtral", "num_local_experts": 2, "num_experts_per_tok": 1}


def of(name: str, dtype: torch.dtype = torch.float32, adapter: Adapter | None = None, **config: Any) -> Trunk:
    """A network of a method, in `dtype` but for its own head, and an adapter that has learned something."""
    model = network(variants.build(name, steps=6, max_tokens=8), config={**CONFIG, **config})
    for hf in networks(model).values():
        hf.to(dtype)
    if adapter is not None:
        attach(model, adapter, seed=0)
        for number, (_, layer) in enumerate(adapted(model.hf)):
            torch.manual_seed(number)
            nn.init.normal_(layer.lora_B["default"].weight, std=0.1)
    return model


CASES: dict[str, Callable[[], Trunk]] = {
    "tied": lambda: of("dpo", tie_word_embeddings=True),
    "untied": lambda: of("dpo", tie_word_embeddings=False),
    "bfloat16 with a value head in float32": lambda: of("ppo", torch.bfloat16),
    "a critic": lambda: of("ppo_critic"),
    "a reward model": lambda: of("reward_model", torch.bfloat16),
    "a gate": lambda: of("gated_reward_model"),
    "experts, which are stored apart": lambda: of("dpo", **EXPERTS),
    "a new network's adapter, merged": lambda: of("dpo", adapter=Adapter(rank=2)),
}
ADAPTERS: dict[str, Callable[[], Trunk]] = {
    "adapter": lambda: of("dpo", adapter=Adapter(rank=2)),
    "adapter on four bits": lambda: of("ppo", adapter=Adapter(rank=2, quantize="nf4")),
    "adapter and embeddings": lambda: of("dpo", adapter=Adapter(rank=2, modules_to_save=("embed_tokens",))),
    "dora": lambda: of("dpo", torch.bfloat16, Adapter(rank=2, form="dora")),
    "adapter of a reward model": lambda: of("reward_model", torch.bfloat16, Adapter(rank=2)),
}


def written(model: Trunk, name: str, folder: Path) -> None:
    if name in CASES:
        with at_hand(model):
            save(model, None, folder, stop_ids={1})
    else:
        with but_layers(model):
            save_adapted(model, None, folder, start=Path("start"), stop_ids={1})


def work(out: Path, ranks: Ranks, scratch: Path, report: Any) -> None:
    gathered: dict[str, int] = {}
    for name, make in {**CASES, **ADAPTERS}.items():
        if ranks.first:
            written(make(), name, out / "one" / name)
        model = ranks.placed(make())
        most = watched(model)
        written(model, name, (out if ranks.first else scratch) / "many" / name)
        gathered[name] = max(most)
        assert not [n for n, p in model.hf.named_parameters() if not hasattr(p, "full_tensor")], "spread again"
    if not ranks.first:
        assert not list(scratch.glob("many/*/model*.safetensors")), "the first one writes the weights"
    else:
        (out / "layers.json").write_text(json.dumps(gathered))


def watched(model: Trunk) -> list[int]:
    """The number of decoder layers that lie whole, whenever one is gathered."""
    layers = [part for part in shards(model) if type(part).__name__.endswith("DecoderLayer")]
    most = [0]

    def gather(before: Callable[[], Any]) -> Any:
        before()
        most.append(sum(not any(hasattr(p, "full_tensor") for p in layer.parameters()) for layer in layers))

    for layer in layers:
        layer.unshard = partial(gather, layer.unshard)
    return most


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    on_ranks(partial(work, folder), 2, folder, shard="fsdp")
    return folder


@pytest.mark.parametrize("name", [*CASES, *ADAPTERS])
def test_two_ranks_write_what_one_process_writes(out: Path, name: str) -> None:
    one, many = out / "one" / name, out / "many" / name
    files = sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file())
    assert any(path.suffix == ".safetensors" for path in files)
    assert sorted(p.relative_to(many) for p in many.rglob("*") if p.is_file()) == files
    assert [str(path) for path in files if (one / path).read_bytes() != (many / path).read_bytes()] == []


def test_no_rank_holds_two_layers(out: Path) -> None:
    """But where a file needs all of them at once."""
    most = json.loads((out / "layers.json").read_text())
    at_once = {name for name, count in most.items() if count > 1}
    assert at_once == {"a new network's adapter, merged"}
    assert all(most.values())


def test_the_order_and_the_head_of_a_file_are_those_of_safetensors(tmp_path: Path) -> None:
    tensors = {
        "b.10": torch.arange(3.0), "b.2": torch.ones(2, 2, dtype=torch.bfloat16), "ä": torch.zeros((), dtype=torch.float64),
        "a": torch.ones(1, 0), "c": torch.arange(2), "h": torch.ones(5, dtype=torch.float16),
    }  # fmt: skip
    save_file(tensors, tmp_path / "file", {"format": "pt"})
    names, header = laid_out(tensors, {"format": "pt"})
    data = b"".join(tensors[name].reshape(-1).view(torch.uint8).numpy().tobytes() for name in names)
    assert (tmp_path / "file").read_bytes() == header + data
