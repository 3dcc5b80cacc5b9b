"""A fit that learns from few rows of a large file reads the reference of those alone: as many tokens, the same numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from evenhand.models.load import new_policy, save
from evenhand.plan import plan as planner
from evenhand.plan import training
from evenhand.spec.read import read_experiment
from evenhand.stages import offline, reference, tokens
from tests.data.tiny_tokenizers import character_tokenizer
from tests.stages.performed import perform

SHAPE = {
    "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
ROWS, STEPS, EACH = 5000, 20, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made, tokenizer = tmp_path_factory.mktemp("large"), character_tokenizer()
    save(new_policy(SHAPE, tokenizer, seed=0, device="cpu"), tokenizer, made / "model")
    pairs = [{"prompt": f"say {n}", "chosen": "z" * (1 + n % 4), "rejected": "qy"} for n in range(ROWS)]
    (made / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
    return made


def plan_of(folder: Path, arm: dict, *overrides: str, **data) -> planner.Plan:
    experiment = {
        "name": "few", "model": {"path": str(folder / "model")}, "initial_policy": "base",
        "data": {"preferences": str(folder / "pairs.jsonl"), **data}, "lengths": {"prompt": 16, "completion": 6},
        "train": {"steps": STEPS, "prompts_per_step": EACH, "learning_rate": 1.0e-3},
        "arms": {"base": {"method": "start"}, "arm": arm},
        "judge": {"reward": {"kind": "length", "unit": "chars"}, "self_test": 0}, "evaluation": {"prompts": 2},
        "runtime": {"device": "cpu"},
    }  # fmt: skip
    return planner.build(read_experiment(experiment, overrides).value)


def in_advance(plan: planner.Plan) -> bool:
    return "reference" in plan[plan.arms["arm"][0]].inputs


def test_few_rows_of_a_large_file_ask_for_no_pass_over_all(folder):
    few = plan_of(folder, {"method": "dpo"})
    assert not in_advance(few)
    assert not any(node.kind == "reference" for node in few.nodes)
    assert in_advance(plan_of(folder, {"method": "dpo", "train": {"steps": 40}})), "more than a row in 16"
    assert in_advance(plan_of(folder, {"method": "dpo", "train": {"steps": None, "epochs": 1}}))
    small = {"path": str(folder / "pairs.jsonl"), "limit": 900}
    assert in_advance(plan_of(folder, {"method": "dpo", "train": {"steps": 1}}, preferences=small)), "a short pass"


@pytest.mark.parametrize("other", ["seeds=[0,1]", "arms.ipo={method: ipo}", "arms.long={method: dpo, train: {steps: 500}}"])
def test_another_seed_or_arm_changes_no_key(folder, other):
    before, after = plan_of(folder, {"method": "dpo"}), plan_of(folder, {"method": "dpo"}, other)
    assert {n.key for n in before.nodes if n.kind == "fit"} < {n.key for n in after.nodes if n.kind == "fit"}


def read_by(monkeypatch, module) -> list[int]:
    """Tokens of every pass that the module asks for; with a prompt once for all of its answers."""
    seen, inner = [], module.read

    def look(model, items, *positional, **named):
        seen.append(sum(item.tokens.size for item in items))
        return inner(model, items, *positional, **named)

    monkeypatch.setattr(module, "read", look)
    return seen


def trained(plan: planner.Plan, folder: Path) -> tuple[Path, list[int]]:
    """The arm's artifact, and how many tokens its rows have."""

    def made(name: str) -> Path:
        node = plan[name]
        inputs = {role: made(other) for role, other in node.inputs.items()}
        place = folder / "store" / node.key
        return place if place.exists() else perform(node.kind, node.spec, inputs, place, seed=node.seed)

    arm = plan[plan.arms["arm"][0]]
    return made(arm.name), [item.tokens.size for item in tokens.read(made(arm.inputs["tokens"]))]


@pytest.mark.parametrize(
    "arm",
    [{"method": "dpo"}, {"method": "ipo", "train": {"adapter": {"rank": 2}}}, {"method": "kto"}, {"method": "topr"}],
    ids=lambda arm: arm["method"],
)
def test_the_same_numbers_from_a_fraction_of_the_tokens(folder, monkeypatch, arm):
    torch.set_num_threads(1)
    inside, before = read_by(monkeypatch, offline), read_by(monkeypatch, reference)
    few, sizes = trained(plan_of(folder, arm), folder)
    passes = 2 if arm["method"] == "kto" else 1  # mismatched rows beside a step's own
    assert 0 < sum(inside) <= passes * STEPS * EACH * max(sizes) < sum(sizes) / 5
    assert (len(inside), before) == (passes * STEPS, [])
    monkeypatch.setattr(training, "_draws_few", lambda *_: False)
    many, _ = trained(plan_of(folder, arm), folder)
    ledgers = [json.loads((made / "ledger.json").read_text()) for made in (few, many)]
    assert ledgers[0]["flops_by_phase"]["reference"] < ledgers[1]["flops_by_phase"]["shared reference"] / 10
    assert ledgers[0]["flops_by_phase"]["train"] == ledgers[1]["flops_by_phase"]["train"]
    assert ledgers[0]["seconds"]["reference"] > 0
    steps = [[json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()] for made in (few, many)]
    for one, other in zip(*steps, strict=True):
        assert one == pytest.approx(other, rel=1e-5, abs=2e-6)
