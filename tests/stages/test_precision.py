"""`model.matmul` reaches every model that any stage opens, and gradient checkpointing changes no weight."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from evenhand.errors import UserError
from evenhand.models import load as loading
from evenhand.models.backbone import Trunk
from evenhand.plan import plan as planner
from evenhand.spec.read import read_experiment
from evenhand.stages.context import StageContext
from evenhand.stages.revise import ReviseSpec, open_chat
from evenhand.synthesis.config import Revise
from tests.models.tiny_networks import network
from tests.stages.performed import perform, setup

SMALL = {
    "name": "small",
    "baseline": "sft",
    "data": {"world": "quickstart", "sizes": {"demonstrations": 8, "preferences": 8, "prompts": 8, "heldout_preferences": 8}},
    "model": {"pretrain": {"documents": 8, "train": {"steps": 1, "prompts_per_step": 4}}},
    "lengths": {"prompt": 24, "completion": 8},
    "sft": {"train": {"steps": 1, "prompts_per_step": 4}},
    "reward_models": {"rm": {"train": {"steps": 1, "prompts_per_step": 4}}},
    "train": {"steps": 2, "prompts_per_step": 2, "learning_rate": 1e-3, "sample_every": 2},
    "arms": {
        "sft": {"method": "start"},
        "dpo": {"method": "dpo"},
        "ppo": {"method": "ppo", "reward": "rm", "completions_per_prompt": 2},
        "grpo": {"method": "grpo", "reward": "rm", "completions_per_prompt": 2},
        "best": {"method": "best_of_n", "n": 2, "reward": "rm"},
    },
    "judge": {"self_test": 2},
    "evaluation": {"prompts": 4, "best_of_n": 2},
}


def performed(folder: Path, *overrides: str) -> dict[str, Path]:
    """Every stage of the experiment, in this process; the artifacts by node."""
    done: dict[str, Path] = {}
    for number, node in enumerate(planner.build(read_experiment(SMALL, overrides).value).nodes):
        out = folder / str(number)
        inputs = {role: done[name] for role, name in node.inputs.items()}
        done[node.name] = perform(node.kind, node.spec, inputs, out, seed=node.seed)
    return done


def weights(artifact: Path) -> bytes:
    return (artifact / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return performed(tmp_path_factory.mktemp("plain"))


def test_products_run_in_the_precision_asked_for_in_every_stage(plain, tmp_path, monkeypatch):
    used: list[torch.dtype | None] = []
    running = Trunk.running

    def watched(self: Trunk):
        used.append(self.matmul_dtype)
        return running(self)

    monkeypatch.setattr(Trunk, "running", watched)
    found = performed(tmp_path, "model.matmul=bfloat16")
    assert set(used) == {torch.bfloat16}
    for name in ("arms/dpo/seed-0", "arms/ppo/seed-0", "arms/grpo/seed-0", "reward_models/rm/seed-0"):
        assert len(weights(found[name])) == len(weights(plain[name])), "weights are kept in their own precision"
        assert weights(found[name]) != weights(plain[name])


def test_checkpointing_gives_the_same_weights(plain, tmp_path, monkeypatch):
    asked: list[bool] = []
    switch = Trunk.set_checkpointing
    monkeypatch.setattr(Trunk, "set_checkpointing", lambda self, on=True: (asked.append(on), switch(self, on)))
    found = performed(tmp_path, "train.gradient_checkpointing=true")
    assert asked == [True] * 3, "three arms are trained"
    for name in ("arms/dpo/seed-0", "arms/ppo/seed-0", "arms/grpo/seed-0"):
        assert weights(found[name]) == weights(plain[name])


def test_only_a_precision_that_was_set_enters_a_key():
    def keys(*overrides: str) -> list[tuple[str, str]]:
        return [(n.name, n.key) for n in planner.build(read_experiment(SMALL, overrides).value).nodes]

    before, after = keys(), keys("model.matmul=bfloat16")
    assert keys("model.matmul=null") == before
    same = [name for (name, key), (_, other) in zip(before, after, strict=True) if key == other]
    assert same == ["data", "tokens/corpus"], "all but what no model has touched"


def test_a_precision_that_is_none_is_refused_with_a_hint():
    with pytest.raises(UserError, match="did you mean 'bfloat16'"):
        read_experiment(SMALL, ["model.matmul=bfloat61"])
    with pytest.raises(UserError, match="did you mean 'matmul'"):
        read_experiment(SMALL, ["model.matmull=bfloat16"])


def test_products_wider_than_weights_are_refused():
    model = Trunk(network("llama").bfloat16())
    with pytest.raises(UserError, match="set `dtype: float32`"):
        loading.set_matmul(model, "float32")
    loading.set_matmul(model, "bfloat16")
    assert model.matmul_dtype is None, "the weights' own precision needs no conversion"


def test_the_policy_that_revises_its_answers_runs_in_it_too(plain, tmp_path):
    asked = setup()
    spec = ReviseSpec(section=Revise(), principles=(), setup=replace(asked, compute=replace(asked.compute, matmul="bfloat16")))
    chat = open_chat(spec, StageContext(seed=0, inputs={"start": plain["sft"]}, out=tmp_path), "cpu")
    assert chat.policy.matmul_dtype == torch.bfloat16
