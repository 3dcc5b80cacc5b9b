"""A network that ranks share is read from its files a layer at a time: the same weights as read whole, and the same checks."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from evenhand.models import layout_check, spread_load
from evenhand.models.adapter_config import Adapter
from evenhand.models.adapter_layers import adapted
from evenhand.models.adapter_models import save_adapted
from evenhand.models.adapters import attach
from evenhand.models.backbone import Trunk
from evenhand.models.heads import CriticPolicy, ValuePolicy
from evenhand.models.layer_turns import decoder_layers
from evenhand.models.load import load_policy, reward_model_from
from evenhand.models.sharding import full
from evenhand.stages import fit
from evenhand.train.ranks import Ranks
from evenhand.types import Head
from tests.models.tiny_architectures import tiny
from tests.models.tiny_networks import network
from tests.ranks.two import on_ranks

Open = Callable[[Path], Trunk]
KINDS = ("llama", "qwen2", "qwen3_moe", "gemma2", "gpt2", "gpt_oss")
MORE = ("qwen3", "mistral", "gemma3_text", "phi", "olmo2", "gpt_neox", "granite", "opt", "glm4", "cohere2")
WHOLE = "an adapter's folder in another precision"


def policy(folder: Path, kind: str, dtype: str = "float32", adapter: Adapter | None = None) -> Trunk:
    model = load_policy(folder / kind, dtype=dtype, device="cpu")
    if adapter is not None:
        attach(model, adapter, seed=0)
    return model


def learned(model: Trunk) -> Trunk:
    """The same network, its adapters with some change in them."""
    for number, (_, layer) in enumerate(adapted(model.hf)):
        torch.manual_seed(number)
        torch.nn.init.normal_(layer.lora_B["default"].weight, std=0.1)
    return model


def critic(folder: Path) -> Trunk:
    return CriticPolicy(policy(folder, "llama").hf, policy(folder, "llama").hf)


CASES: dict[str, Open] = {
    **{kind: partial(policy, kind=kind) for kind in KINDS},
    **{f"{kind} in bfloat16": partial(policy, kind=kind, dtype="bfloat16") for kind in ("llama", "mixtral", "qwen3_moe")},
    "a reward model": lambda folder: reward_model_from(folder / "qwen2", seed=3, dtype="float32", device="cpu"),
    "a value head": lambda folder: ValuePolicy(policy(folder, "gemma2", "bfloat16").hf),
    "a critic": critic,
    "an adapter": partial(policy, kind="llama", adapter=Adapter(rank=2)),
    "an adapter of gpt2": partial(policy, kind="gpt2", adapter=Adapter(rank=2)),
    "dora": partial(policy, kind="llama", dtype="bfloat16", adapter=Adapter(rank=2, form="dora")),
    "an adapter on four bits": partial(policy, kind="llama", adapter=Adapter(rank=2, quantize="nf4")),
    "an adapter and whole modules": partial(
        policy, kind="llama", adapter=Adapter(rank=2, targets=("q_proj",), modules_to_save=("embed_tokens", "down_proj"))
    ),
    "an adapter's folder": partial(policy, kind="adapter"),
    "a folder of dora on four bits, and an adapter": partial(policy, kind="dora", adapter=Adapter(rank=2)),
    WHOLE: partial(policy, kind="adapter", dtype="bfloat16"),
}
SLOW: dict[str, Open] = {kind: partial(policy, kind=kind) for kind in MORE}


def weights(model: Trunk) -> dict[str, torch.Tensor]:
    return {name: full(tensor.detach()) for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def same(one: Trunk, many: Trunk) -> dict[str, Any]:
    a, b = weights(one), weights(many)
    return {
        "differ": [n for n in a.keys() | b.keys() if n not in a or n not in b or not same_bits(a[n], b[n])],
        "whole": [n for n, p in many.named_parameters() if not hasattr(p, "full_tensor")],
        "learns": [[n for n, p in m.named_parameters() if p.requires_grad] for m in (one, many)],
        "runs": [[t.layout_mode for t in m.modules() if isinstance(t, Trunk)] for m in (one, many)],
        "reads": [getattr(m, "head_mode", "") for m in (one, many)],
    }


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(a, b)


def beside_whole(folder: Path, ranks: Ranks, cases: dict[str, Open]) -> dict[str, Any]:
    """Each case opened by layers and whole."""
    found: dict[str, Any] = {}
    for name, make in cases.items():
        with said() as lines, counted() as most, ranks.opening():
            many = make(folder)
            ranks.placed(many)
        found[name] = same(make(folder), many) | {"said": lines, "most": most}
    return found


def work(folder: Path, ranks: Ranks, scratch: Path, report: Any) -> None:
    found = beside_whole(folder, ranks, CASES)
    found["again in float32"] = doubted(folder, ranks)
    mixture = ranks.placed(policy(folder, "mixtral"))
    fit.router_loss(mixture, SimpleNamespace(train=SimpleNamespace(router_loss=0.1)))  # type: ignore[arg-type]
    found["routers"] = Head.EXPERTS in mixture.gives
    if ranks.first:
        (folder / "found.json").write_text(json.dumps(found))


def work_more(folder: Path, ranks: Ranks, scratch: Path, report: Any) -> None:
    found = beside_whole(folder, ranks, SLOW)
    if ranks.first:
        (folder / "found.json").write_text(json.dumps(found))


def doubted(folder: Path, ranks: Ranks) -> list[str]:
    """How a network runs whose every check in bfloat16 fails: as the same checks in float32 say."""
    strict = pytest.MonkeyPatch()
    strict.setitem(layout_check.TOLERANCE, torch.bfloat16, -1.0)
    with strict.context(), ranks.opening():
        one = load_policy(folder / "llama", dtype="bfloat16", device="cpu")
        ranks.placed(one)
    strict.undo()
    return [one.layout_mode, one.head_mode]


@contextmanager
def said() -> Iterator[list[str]]:
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    spread_load.log.addHandler(handler)
    yield lines
    spread_load.log.removeHandler(handler)


@contextmanager
def counted() -> Iterator[list[int]]:
    """The number of layers that have all of their weights, whenever one was read."""
    most: list[int] = []
    read = spread_load.read

    def counting(hf: Any, name: str) -> None:
        read(hf, name)
        layers = decoder_layers(hf).values()
        most.append(sum(not any(p.is_meta or hasattr(p, "full_tensor") for p in layer.parameters()) for layer in layers))

    changed = pytest.MonkeyPatch()
    changed.setattr("evenhand.models.sharding.read", counting)
    yield most
    changed.undo()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("opened")
    for kind in (*KINDS, "mixtral"):
        network(kind, num_hidden_layers=3).save_pretrained(folder / kind)
    for name, adapter in {"adapter": Adapter(rank=2), "dora": Adapter(rank=2, form="dora", quantize="nf4")}.items():
        save_adapted(learned(policy(folder, "llama", adapter=adapter)), None, folder / name, start=folder / "llama")
    on_ranks(partial(work, folder), 2, folder, shard="fsdp")
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("opened")
    for kind in MORE:
        network(kind, num_hidden_layers=3).save_pretrained(folder / kind)
    on_ranks(partial(work_more, folder), 2, folder, shard="fsdp")
    return json.loads((folder / "found.json").read_text())


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_network_that_is_read_whole(found: dict[str, Any], name: str) -> None:
    is_as_read_whole(found[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_so_it_is_for_more_architectures(more: dict[str, Any], name: str) -> None:
    is_as_read_whole(more[name])
    assert (set(more[name]["most"]), more[name]["said"]) == ({1}, [])


def is_as_read_whole(case: dict[str, Any]) -> None:
    assert case["differ"] == []
    assert case["whole"] == []
    for what in ("learns", "runs", "reads"):
        one, many = case[what]
        assert one == many, what


@pytest.mark.parametrize("name", [name for name in CASES if name != WHOLE])
def test_no_rank_ever_has_two_layers(found: dict[str, Any], name: str) -> None:
    assert set(found[name]["most"]) == {1}
    assert found[name]["said"] == []


def test_what_is_read_whole_is_said_once(found: dict[str, Any]) -> None:
    assert max(found[WHOLE]["most"]) > 1
    assert [line.partition(" is ")[2] for line in found[WHOLE]["said"]] == [
        "read whole on every rank before it is spread: it was trained in float32"
    ]


def test_weights_of_two_layers_are_read_whole(tmp_path: Path) -> None:
    tiny("zamba").save_pretrained(tmp_path)
    with said() as lines, spread_load.layers_in_files():
        hf, _ = spread_load.opened(AutoModelForCausalLM, str(tmp_path))
    assert not any(p.is_meta for p in hf.parameters())
    (line,) = lines
    assert line.endswith("is a weight of two layers")


def test_a_check_that_rounding_alone_fails_is_made_again_in_float32(found: dict[str, Any]) -> None:
    assert found["again in float32"] == ["tree", "logits"]


def test_routers_are_read_where_their_weights_are_spread(found: dict[str, Any]) -> None:
    assert found["routers"]
