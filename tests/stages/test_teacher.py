"""A teacher named by an arm, through the real plan and stages: distilled from, and refused where its tokens are others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evenhand import worlds
from evenhand.errors import UserError
from evenhand.models.load import new_policy, save
from evenhand.spec.read import read_experiment
from tests.data.tiny_tokenizers import character_tokenizer
from tests.stages.test_signals import TRAIN, carried_out

ARMS = {
    "mixed": {"method": "gkd", "on_policy": 0.5},
    "sampled": {"method": "on_policy_distillation", "completions_per_prompt": 2},
    "exact": {"method": "exact_distillation", "completions_per_prompt": 2},
}


def written(folder: Path, config: dict | None = None, tokenizer=None) -> str:
    """A teacher of the quickstart world's tokens, of another size than its policy."""
    world = worlds.get("quickstart")
    tokenizer = tokenizer or world.tokenizer()
    changed = {**world.model_config(), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, **(config or {})}
    save(new_policy(changed, tokenizer, seed=5, device="cpu"), tokenizer, folder)
    return str(folder)


def experiment(teacher: str | None, arms: dict | None = None) -> dict:
    arms = {name: {**arm, **({"teacher": {"path": teacher}} if teacher else {})} for name, arm in (arms or ARMS).items()}
    return {
        "name": "distilled", "baseline": "sft",
        "data": {"world": "quickstart", "sizes": {"demonstrations": 24, "prompts": 16}},
        "model": {"pretrain": {"documents": 32, "train": TRAIN}}, "lengths": {"prompt": 32, "completion": 12},
        "sft": {"train": TRAIN}, "train": TRAIN, "arms": {"sft": {"method": "start"}, **arms},
        "evaluation": {"prompts": 6}, "judge": {"reward": {"kind": "length", "unit": "words"}, "self_test": 0},
        "runtime": {"device": "cpu"},
    }  # fmt: skip


def test_arms_learn_from_a_teacher_without_a_reward(tmp_path, tmp_path_factory):
    plan, folders = carried_out(experiment(written(tmp_path / "teacher")), tmp_path_factory.mktemp)
    teachers = {node.inputs["teacher"] for node in plan.nodes if "teacher" in node.inputs}
    assert len(teachers) == 1, "one teacher for all arms"
    for name in ARMS:
        out = next(folders[n.name] for n in plan.nodes if n.name.startswith(f"arms/{name}/"))
        ledger = json.loads((out / "ledger.json").read_text())
        assert ledger["reward_calls"] == 0
        assert ledger["tokens_generated"] > 0
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        assert all("reward" not in line for line in lines)
        assert lines[0]["loss"] != 0 or name == "sampled"
        assert lines[0]["grad_norm"] > 0
        if name != "sampled":
            assert lines[0]["divergence"] > 0
        assert ("reference" in ledger["flops_by_phase"]) == (name == "sampled")


def refusal(tmp_path_factory, teacher: str, arm: str) -> UserError:
    with pytest.raises(UserError) as told:
        carried_out(experiment(teacher, {arm: ARMS[arm]}), tmp_path_factory.mktemp)
    return told.value


def test_a_teacher_with_another_tokenizer_is_refused_in_words(tmp_path, tmp_path_factory):
    teacher = written(tmp_path / "teacher", {"vocab_size": 300}, character_tokenizer())
    for arm in ("sampled", "mixed"):
        told = refusal(tmp_path_factory, teacher, arm)
        assert "its tokenizer is not the policy's" in told.what
        assert "demonstrations" in told.fix


def test_a_head_of_another_size_is_refused_where_whole_distributions_are_compared(tmp_path, tmp_path_factory):
    size = len(worlds.get("quickstart").tokenizer())
    told = refusal(tmp_path_factory, written(tmp_path / "teacher", {"vocab_size": size + 8}), "exact")
    assert told.what == f"its head has {size + 8} tokens, the policy's {size}"


@pytest.mark.parametrize(
    ("arm", "teacher", "words"),
    [
        ({"method": "gkd"}, None, "learns from a teacher"),
        ({"method": "sft"}, "somewhere", "learns from no teacher"),
        ({"method": "gkd", "reward": "gold"}, "somewhere", "learns from a teacher; a reward has no effect"),
        (
            {"method": "exact_distillation", "train": {"keep_checkpoint": "best", "validate_every": 1}},
            "somewhere",
            "nothing to choose",
        ),
    ],
)
def test_a_teacher_is_named_where_one_is_learned_from(arm, teacher, words):
    with pytest.raises(UserError, match=words):
        read_experiment(experiment(teacher, {"a": arm}))
