"""Weights that ranks share and that a pass has left gathered: nothing is written to them, and no optimizer holds them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from evenhand import methods
from evenhand.models.backbone import Trunk
from evenhand.models.sharding import full
from evenhand.train import checkpoint
from evenhand.train.config import Train
from evenhand.train.examples import micro_batches
from evenhand.train.loop import accumulate
from evenhand.train.optim import AdamW
from evenhand.train.optimizers import optimizer_for
from evenhand.train.ranks import Ranks
from evenhand.train.weights import copy_weights, learning, spread
from tests.battery.world import items_for, logps_of, network
from tests.ranks.two import on_ranks

DPO = methods.build("dpo", {}, steps=2, max_tokens=8)


def adamw(model: Trunk) -> AdamW:
    return AdamW(model, learning_rate=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)


def looked_at(ranks: Ranks) -> Trunk:
    """A network that has been asked once, without a gradient."""
    model = ranks.placed(network(DPO))
    with torch.no_grad():
        logps_of(model, items_for(DPO, prompts=1))
    return model


def one_step(model: Trunk, ranks: Ranks) -> None:
    optimizer = adamw(model)
    accumulate(model, DPO.objective, micro_batches(items_for(DPO), 40, ranks.size), ranks=ranks)
    optimizer.step(1.0)


def work(out: Path, ranks: Ranks, scratch: Path, report: Any) -> None:
    found: dict[str, Any] = {"gathered": [n for n, p in looked_at(ranks).named_parameters() if not hasattr(p, "full_tensor")]}
    for optimizer in ("adamw", "adamw_8bit"):
        try:
            optimizer_for(looked_at(ranks), Train(optimizer=optimizer, learning_rate=0.1), seed=0)
        except RuntimeError as error:
            found[optimizer] = str(error)
    learns = spread(looked_at(ranks))
    before = {n: full(p.detach()).clone() for n, p in learns.named_parameters()}
    one_step(learns, ranks)
    found["still"] = [n for n, p in learns.named_parameters() if torch.equal(full(p.detach()), before[n])]

    other, copied = network(DPO, seed=1), looked_at(ranks)
    copy_weights(other, copied)
    wanted = dict(other.named_parameters())
    found["not copied"] = [n for n, p in spread(copied).named_parameters() if not torch.equal(full(p), wanted[n])]
    found["not spread"] = [n for n, t in checkpoint.trained(looked_at(ranks)).items() if not hasattr(t, "full_tensor")]
    if ranks.first:
        out.write_text(json.dumps(found))


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("gathered")
    on_ranks(partial(work, out / "found.json"), 2, out, shard="fsdp")
    return json.loads((out / "found.json").read_text())


def test_a_pass_without_a_backward_one_leaves_weights_gathered(found):
    assert {name.split(".")[-2] for name in found["gathered"]} >= {"embed_tokens", "norm"}


def test_no_optimizer_holds_gathered_weights(found):
    assert "lie gathered" in found["adamw"]
    assert "lie gathered" in found["adamw_8bit"]
    assert found["still"] == []


def test_what_is_written_to_a_network_stays(found):
    assert found["not copied"] == []
    assert found["not spread"] == []


def test_one_process_has_nothing_gathered():
    model = network(DPO)
    assert learning(model) == dict(model.named_parameters())
