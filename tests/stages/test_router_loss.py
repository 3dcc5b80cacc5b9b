"""A mixture of experts is trained with the loss of its routers where its config or the experiment says so, under its own key."""

from __future__ import annotations

import json

import pytest

from evenhand.errors import UserError
from evenhand.models.load import new_policy, save
from evenhand.plan import plan as planner
from evenhand.spec.read import read_experiment
from tests.data.tiny_tokenizers import character_tokenizer
from tests.stages.performed import perform

SHAPE = {
    "model_type": "mixtral", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "num_local_experts": 4, "num_experts_per_tok": 2,
}  # fmt: skip
ASKED = {**SHAPE, "output_router_logits": True, "router_aux_loss_coef": 0.5}
TRAIN = {"steps": 3, "prompts_per_step": 8, "learning_rate": 1e-3, "evaluate_every": 3}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """One network saved twice: its config asks for the loss in one of the folders."""
    made, tokenizer = tmp_path_factory.mktemp("models"), character_tokenizer()
    for name, shape in (("asked", ASKED), ("silent", SHAPE)):
        save(new_policy(shape, tokenizer, seed=0, device="cpu"), tokenizer, made / name)
    pairs = [{"prompt": f"say {'abc'[n % 3]}", "chosen": "z" * (1 + n % 4), "rejected": "qy"} for n in range(40)]
    (made / "pairs.jsonl").write_text("".join(json.dumps(p) + "\n" for p in pairs))
    return made


def plan_of(models, name, *overrides):
    experiment = {
        "name": "routed", "model": {"path": str(models / name)}, "initial_policy": "base",
        "data": {"preferences": str(models / "pairs.jsonl"), "holdout": 0.2}, "lengths": {"prompt": 16, "completion": 6},
        "train": TRAIN, "reward_models": {"rm": {"train": {"steps": 1}}},
        "arms": {"base": {"method": "start"}, "dpo": {"method": "dpo"}},
        "judge": {"reward": {"kind": "length", "unit": "chars"}, "self_test": 0}, "evaluation": {"prompts": 2},
        "runtime": {"device": "cpu"},
    }  # fmt: skip
    return planner.build(read_experiment(experiment, overrides).value)


def fits(plan):
    return {n.name.split("/seed")[0]: n for n in plan.nodes if n.kind == "fit"}


def trained(plan, folder):
    """The metrics of the arm."""
    done = {}
    for number, node in enumerate(plan.nodes):
        if node.kind in ("generate", "judge", "judge_self_test", "sample_rewards", "score_answers", "evaluate_reward_model"):
            continue
        inputs = {role: done[name] for role, name in node.inputs.items()}
        done[node.name] = perform(node.kind, node.spec, inputs, folder / str(number), seed=node.seed)
    arm = done[plan.arms["dpo"][0]]
    assert (arm / "reward.json").is_file(), "an arm that serves as a reward still does"
    return [json.loads(line) for line in (arm / "metrics.jsonl").read_text().splitlines()]


def test_as_the_config_says_or_as_asked(models, tmp_path):
    routed = trained(plan_of(models, "asked"), tmp_path / "a")
    off = trained(plan_of(models, "asked", "train.router_loss=0"), tmp_path / "b")
    named = trained(plan_of(models, "silent", "train.router_loss=0.5"), tmp_path / "c")
    silent = trained(plan_of(models, "silent"), tmp_path / "d")
    for rows in (routed, named):
        assert all(1.5 < row["router_balance"] < 4 for row in rows), "two of four experts each: 2 when even, 4 at worst"
        assert "heldout/router_balance" in rows[-1]
    assert not any("router_balance" in row for row in (*off, *silent))
    first = routed[0]
    assert first["loss"] == pytest.approx(off[0]["loss"] + 0.5 * first["router_balance"], rel=1e-5)
    assert [r["loss"] for r in named] == pytest.approx([r["loss"] for r in routed], rel=1e-6)
    assert [r["loss"] for r in silent] == [r["loss"] for r in off]


def test_the_cut_changes_nothing(models, tmp_path):
    whole = trained(plan_of(models, "asked"), tmp_path / "whole")
    parts = trained(plan_of(models, "asked", "train.tokens_per_microbatch=40"), tmp_path / "parts")
    assert [r["loss"] for r in parts] == pytest.approx([r["loss"] for r in whole], rel=1e-4)


def test_keys(models):
    """What the loss changes has another key; reward models, which have no such loss, and models that do not ask keep theirs."""
    asked, zero = fits(plan_of(models, "asked")), fits(plan_of(models, "asked", "train.router_loss=0"))
    assert asked["arms/dpo"].spec.train.router_loss == 0.5
    assert asked["arms/dpo"].key != zero["arms/dpo"].key
    assert asked["reward_models/rm"].spec.train.router_loss is None
    silent = fits(plan_of(models, "silent"))
    assert silent["arms/dpo"].spec.train.router_loss is None


def test_a_network_without_routers_refuses_the_setting(models, tmp_path):
    tokenizer = character_tokenizer()
    dense = {k: v for k, v in SHAPE.items() if "experts" not in k} | {"model_type": "llama"}
    save(new_policy(dense, tokenizer, seed=0, device="cpu"), tokenizer, models / "dense")
    with pytest.raises(UserError, match="routers of LlamaForCausalLM cannot be balanced"):
        trained(plan_of(models, "dense", "train.router_loss=0.1"), tmp_path)
