"""Every kind of signal an experiment can name, through the real plan and stages: local and DPO rewards, ensembles, best of n."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from evenhand.data.jsonl import read_groups
from evenhand.errors import UserError
from evenhand.models.load import new_policy, save
from evenhand.plan import plan as planner
from evenhand.spec.read import read_experiment
from evenhand.stages.common import build_reward, open_model_reward
from tests.data.tiny_tokenizers import character_tokenizer
from tests.stages.performed import perform

TRAIN = {"steps": 2, "prompts_per_step": 4, "learning_rate": 1e-3}
EXPERIMENT = {
    "name": "signals",
    "baseline": "sft",
    "data": {"world": "quickstart", "sizes": {"demonstrations": 24, "preferences": 24, "prompts": 16, "heldout_preferences": 12}},
    "model": {"pretrain": {"documents": 32, "train": TRAIN}},
    "lengths": {"prompt": 32, "completion": 12},
    "sft": {"train": TRAIN},
    "reward_models": {
        "first": {"train": TRAIN}, "second": {"train": TRAIN}, "own": {"method": "local_reward_model", "train": TRAIN},
        "ratio": {"method": "dpo", "beta": 0.05, "train": TRAIN},
    },
    "rewards": {"both": {"kind": "ensemble", "members": ["first", "second"], "rule": "lower_bound", "k": 0.5}},
    "train": TRAIN,
    "arms": {
        "sft": {"method": "start"},
        "careful": {"method": "rloo", "reward": "both", "completions_per_prompt": 2},
        "by_ratio": {"method": "rloo", "reward": "ratio", "completions_per_prompt": 2},
        "explored": {
            "method": "iterative_dpo", "rounds": 1, "epochs": 1, "completions_per_prompt": 4, "hybrid": True, "partner": "start",
            "reward": "gold",
        },
        "chosen": {"method": "best_of_n", "n": 4, "reward": "own"},
        "plain": {"method": "best_of_n", "n": 4, "reward": "gold"},
    },
    "evaluation": {"prompts": 6},
    "runtime": {"device": "cpu"},
}  # fmt: skip


Done = tuple[planner.Plan, dict[str, Path]]


def carried_out(experiment: dict, new_folder: Callable[[str], Path]) -> Done:
    """Every node run in order, in this process."""
    plan = planner.build(read_experiment(experiment).value)
    folders: dict[str, Path] = {}
    for node in plan.nodes:
        folders[node.name] = new_folder("node")
        inputs = {role: folders[name] for role, name in node.inputs.items()}
        perform(node.kind, node.spec, inputs, folders[node.name], seed=node.seed)
    return plan, folders


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    return carried_out(EXPERIMENT, tmp_path_factory.mktemp)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_an_ensemble_names_its_members(done):
    plan, folders = done
    node = plan["arms/careful/seed-0"]
    assert set(node.inputs) >= {"reward_models/first", "reward_models/second"}
    assert "reward_references/first" not in node.inputs
    for row in rows(folders[node.name]):
        spread = [row[f"reward/{name}"] for name in ("member 0", "member 1", "spread")]
        assert row["reward"] == pytest.approx((spread[0] + spread[1]) / 2 - 0.5 * spread[2], abs=1e-5)


def test_a_dpo_reward_comes_with_its_reference(done):
    plan, folders = done
    node = plan["arms/by_ratio/seed-0"]
    assert node.inputs["reward_references/ratio"] == plan["reward_models/ratio/seed-0"].inputs["start"] == "sft"
    for row in rows(folders[node.name]):
        assert row["reward"] == pytest.approx(0.05 * (row["reward/logp"] - row["reward/ref_logp"]), abs=1e-4)


@pytest.mark.parametrize("name", ["first", "own", "ratio"])
def test_every_reward_model_is_evaluated_on_held_out_pairs(done, name):
    _, folders = done
    scores = json.loads((folders[f"reward_models/{name}/seed-0/evaluation"] / "scores.json").read_text())
    assert len(scores["chosen"]) == len(scores["rejected"]) == 12
    assert scores["chosen"] != scores["rejected"]


@pytest.mark.parametrize("arm", ["chosen", "plain"])
def test_best_of_n_beats_a_single_answer_by_its_own_reward(done, arm):
    """The arm trains nothing: it generates from the start, and its mean reward over prompts is not below the start's."""
    plan, folders = done
    assert plan.arms[arm][0] == "sft"
    node = plan[plan.generations[arm][0]]
    inputs = {role: folders[name] for role, name in node.inputs.items()}
    reward = build_reward(node.spec.reward, inputs, node.spec.setup, "cpu")
    single = read_groups(folders[plan.generations["sft"][0]] / "generations.jsonl")
    best = read_groups(folders[node.name] / "generations.jsonl")
    mean = lambda groups: sum(s.values[0] for s in reward(groups)) / len(groups)  # noqa: E731
    assert [len(g.completions) for g in best] == [1] * 6
    assert [g.prompt.id for g in best] == [g.prompt.id for g in single]
    assert mean(best) > mean(single)


def test_best_of_n_states_its_divergence(done):
    """log 4 - 3/4 nats, since its policy is the start itself."""
    plan, folders = done
    measured = json.loads((folders[plan.generations["chosen"][0]] / "measured.json").read_text())
    assert measured["kl"] == pytest.approx([0.6363] * 6, abs=1e-3)


def test_a_reference_that_is_missing_is_an_error(done):
    plan, folders = done
    spec = plan["reward_models/ratio/seed-0/evaluation"].spec
    with pytest.raises(ValueError, match="relative to a reference"):
        open_model_reward(folders["reward_models/ratio/seed-0"], spec.setup, "cpu")


def test_hybrid_rounds_train_on_both_kinds_of_pairs(done):
    """16 prompts' worth of rollouts and 24 pairs of the data make one round; the start writes half of every group."""
    plan, folders = done
    found = rows(folders[plan.arms["explored"][0]])
    assert len(found) == 2
    assert all(row["kl"] == pytest.approx(0.0, abs=1e-3) for row in found), "both authors are still the start"
    ledger = json.loads((folders[plan.arms["explored"][0]] / "ledger.json").read_text())
    assert ledger["reward_calls"] == 4 * 4 * 2
    assert ledger["tokens_trained"] > 24 * 2 * 5, "more than the rollouts' own tokens"


def test_a_world_without_letters_refuses_a_preference_model(tmp_path):
    pm = {**EXPERIMENT, "reward_models": {"pm": {"method": "preference_model", "train": TRAIN}}, "rewards": {}}
    pm["arms"] = {"sft": {"method": "start"}, "led": {"method": "rloo", "reward": "pm", "completions_per_prompt": 2}}
    with pytest.raises(UserError, match="same token"):
        carried_out(pm, numbered(tmp_path))


def numbered(folder: Path) -> Callable[[str], Path]:
    def new(name: str) -> Path:
        made = folder / f"{name}-{len(list(folder.iterdir()))}"
        made.mkdir()
        return made

    return new


def test_a_preference_model_is_reward_and_judge(tmp_path):
    """Pairs in which z beats q, a model whose tokenizer knows the letters; the judge compares the answers themselves."""
    tokenizer = character_tokenizer()
    config = {
        "model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "max_position_embeddings": 128,
    }  # fmt: skip
    save(new_policy(config, tokenizer, seed=0, device="cpu"), tokenizer, tmp_path / "base")
    lines = [json.dumps({"prompt": f"say {n}", "chosen": "z", "rejected": "q"}) for n in range(40)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    experiment = {
        "name": "letters", "model": {"path": str(tmp_path / "base")},
        "data": {"preferences": str(tmp_path / "pairs.jsonl"), "holdout": 0.2},
        "initial_policy": "base", "lengths": {"prompt": 16, "completion": 4}, "train": TRAIN,
        "reward_models": {"pm": {"method": "preference_model", "train": {**TRAIN, "steps": 4}}},
        "arms": {
            "base": {"method": "start"},
            "led": {"method": "rloo", "reward": "pm", "completions_per_prompt": 3, "train": {"learning_rate": 0.03}},
        },
        "judge": {"reward": "pm"}, "evaluation": {"prompts": 4}, "runtime": {"device": "cpu"},
    }  # fmt: skip
    plan, folders = carried_out(experiment, numbered(tmp_path))
    for row in rows(folders[plan.arms["led"][0]]):
        assert row["reward"] == pytest.approx(0.5), "Borda scores of a group sum to half its players"
    verdicts = json.loads((folders[plan.verdicts["led"][0]] / "verdicts.json").read_text())
    assert len(verdicts["outcome"]) == 4
    asked = [pair for pair in verdicts["orders"] if {order["status"] for order in pair} == {"logprobs"}]
    assert asked, "the model was shown the two answers, not each alone"
    assert all({order["a_first"] for order in pair} == {True, False} for pair in asked)
    same = json.loads((folders[plan.verdicts["base"][0]] / "verdicts.json").read_text())
    assert same["outcome"] == [0.5] * 4
    scores = json.loads((folders["reward_models/pm/seed-0/evaluation"] / "scores.json").read_text())
    assert [a + b for a, b in zip(scores["chosen"], scores["rejected"], strict=True)] == pytest.approx(
        [1.0] * len(scores["chosen"])
    )
