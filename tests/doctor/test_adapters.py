"""Adapters under examination: healthy ones pass, misnamed and unmerged ones are found."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from evenhand.models import adapter_layers, adapters, equivalence
from evenhand.models.adapter_config import Adapter
from tests.doctor.patients import Ward


@pytest.fixture
def ward(tmp_path: Path) -> Ward:
    found = Ward(tmp_path)
    found.experiment["train"]["adapter"] = {"rank": 2, "alpha": 4}
    return found


def told(ward: Ward, check: str, *, quick: bool = False) -> list[tuple[str, str]]:
    return [(f.severity, f.seen) for r in ward.examine(quick=quick, only=[check]).results for f in r.findings]


def test_how_many_weights_learn_is_known_before_anything_runs(ward):
    """Rank 2 on one block: four layers of 16 + 16, three of 16 + 24."""
    ward.experiment["arms"]["grpo"]["train"] = {"adapter": None}
    found = told(ward, "M9", quick=True)
    assert [s for s, _ in found] == ["INFO"]
    assert f" {2 * (4 * 32 + 3 * 40):,} of " in found[0][1]


def test_a_misspelt_layer_is_found_before_anything_runs(ward):
    ward.experiment["train"]["adapter"]["targets"] = ["q_porj"]
    assert ("FAIL", "arms.dpo: no layer is called 'q_porj'") in told(ward, "M9", quick=True)


def test_a_missing_library_is_found_before_anything_runs(ward, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    assert ("FAIL", "peft is not installed") in told(ward, "M9", quick=True)


@pytest.mark.parametrize(("checkpointing", "quantize"), [(False, None), (True, None), (False, "nf4")])
def test_a_healthy_adapter_learns_and_survives(ward, checkpointing, quantize):
    ward.experiment["train"] |= {"gradient_checkpointing": checkpointing}
    ward.experiment["train"]["adapter"] |= {"quantize": quantize}
    found = told(ward, "M10")
    assert {s for s, _ in found} == {"INFO"}
    assert [kind in seen for kind, (_, seen) in zip(("model/", "adapter/"), found, strict=True)] == [True, True]


def test_a_model_that_was_never_merged_is_found(ward, monkeypatch):
    """The merged model is the untrained one: saving it is refused, and where it were not the doctor compares what was saved."""
    monkeypatch.setattr(adapter_layers, "merged_weight", lambda layer: layer.base_layer.weight)
    assert told(ward, "M10") == [("FAIL", "save: merging the adapter gives another model")]
    monkeypatch.setattr(equivalence.Original, "compare", lambda *a, **k: None)
    assert [s for s, seen in told(ward, "M10") if "model/" in seen] == ["FAIL"]


@pytest.mark.parametrize("reached", [{16, 24}, {16}])
def test_an_adapter_without_gradient_is_found(ward, monkeypatch, reached):
    """The layers compute, and nothing reaches what should learn."""
    from peft.tuners.lora.layer import Linear

    plain = Linear.forward
    cut = lambda y: y.detach() if y.shape[-1] in reached else y  # noqa: E731
    monkeypatch.setattr(Linear, "forward", lambda self, x: cut(plain(self, x)))
    found = [seen for s, seen in told(ward, "M10") if s == "FAIL"]
    assert any("no gradient" in seen or "gets a gradient" in seen for seen in found)


def test_rehearsals_of_other_networks_use_their_own_names(ward):
    """B6 stops and resumes an adapter on the experiment's model; G6 trains one on a small network of another kind."""
    ward.shape = {"model_type": "gpt_neox", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
                  "num_attention_heads": 2, "max_position_embeddings": 1024}  # fmt: skip
    ward.experiment["train"]["adapter"]["targets"] = ["query_key_value", "dense"]
    assert {s for s, seen in told(ward, "B6") if "same bytes" in seen} == {"INFO"}
    assert all("no layer is called" not in seen for _, seen in told(ward, "G6"))


def test_an_adapter_as_the_start_is_examined_with_its_base(ward):
    from evenhand.models import adapter_files
    from evenhand.models.load import load_policy

    path = ward.write()
    policy = load_policy(ward.folder / "model")
    adapters.attach(policy, Adapter(rank=2), seed=0)
    adapter_files.write(policy, ward.folder / "adapter", start=ward.folder / "model")
    config = ward.folder / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "/gone"}))
    from evenhand.doctor import examine
    from evenhand.run_experiment import prepare

    changes = [f"model.path={ward.folder / 'adapter'}", f"model.base={ward.folder / 'model'}"]
    found = examine(prepare(str(path), changes, ward.folder / "out"), quick=False, only=["M6", "T4", "M1", "B2"])
    assert [f.seen for r in found.results for f in r.findings if f.severity == "FAIL"] == []
    assert any("first loss is 0.6931" in f.seen for r in found.results for f in r.findings)
