"""Reward models of several outputs through the real plan and stages: from ratings and pairs to arms, a judge and cards."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from safetensors.torch import load_file

from evenhand import worlds
from evenhand.errors import UserError
from evenhand.rewards.attributes import AttributeReward
from evenhand.rewards.general_preference import GeneralPreferenceJudge
from evenhand.rewards.model import Normalisation
from evenhand.spec.read import read_experiment
from evenhand.stages.common import open_model_reward
from evenhand.stages.setup import Compute, Setup
from evenhand.train.config import Lengths
from evenhand.types import Completion, Group
from tests.stages.test_signals import TRAIN, carried_out

SETUP = Setup(compute=Compute(device="cpu", dtype="float32"), lengths=Lengths(prompt=32, completion=16))


def ratings(path, count: int) -> str:
    """Two answers to a question of the built-in world, rated by two attributes; every third length is missing."""
    rows = []
    for n, group in enumerate(worlds.get("quickstart").preferences(3, count)):
        turns = [{"role": m.role, "content": m.content} for m in group.prompt.content]
        given = [{"good": 4, "long": None if n % 3 == 0 else n % 5}, {"good": n % 2}]
        rows.append({"prompt": turns, "completions": [c.text for c in group.completions], "ratings": given})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def experiment(file: str) -> dict:
    rloo = {"method": "rloo", "completions_per_prompt": 2}
    return {
        "name": "several", "baseline": "start", "initial_policy": "base",
        "data": {"world": "quickstart", "sizes": {"prompts": 16, "preferences": 16, "heldout_preferences": 8}},
        "model": {"pretrain": {"documents": 32, "train": TRAIN}}, "lengths": {"prompt": 32, "completion": 16},
        "splits": {"rated": {"source": file}},
        "reward_models": {
            "armo": {
                "method": "gated_reward_model", "initial_policy": "heads", "hidden": 8, "layers": 1, "debias": "long",
                "train": TRAIN,
            },
            "heads": {
                "method": "attribute_reward_model", "attributes": {"good": [0, 4], "long": [0, 4]}, "weights": {"good": 2.0},
                "data": "rated", "train": TRAIN,
            },
            "gpm": {"method": "general_preference_model", "dimensions": 4, "train": TRAIN},
        },
        "train": TRAIN,
        "arms": {
            "start": {"method": "start"}, "heads_arm": {**rloo, "reward": "heads"}, "armo_arm": {**rloo, "reward": "armo"},
            "gpm_arm": {**rloo, "reward": "gpm"},
        },
        "evaluation": {"prompts": 4}, "judge": {"reward": "gpm", "self_test": 0}, "runtime": {"device": "cpu"},
    }  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    return carried_out(experiment(ratings(tmp_path_factory.mktemp("rows") / "rated.jsonl", 24)), tmp_path_factory.mktemp)


def node_of(done, begins: str):
    plan, folders = done
    return next((n, folders[n.name]) for n in plan.nodes if n.name.startswith(begins))


def metrics(done, arm: str) -> list[dict]:
    return [json.loads(line) for line in (node_of(done, f"arms/{arm}/")[1] / "metrics.jsonl").read_text().splitlines()]


def test_the_reward_is_the_weighted_sum_and_its_parts_are_the_attributes(done):
    folder = node_of(done, "reward_models/heads/seed")[1]
    scale = Normalisation.load(folder / "model")
    assert (scale.shift, scale.scale) != (0.0, 1.0)
    for row in metrics(done, "heads_arm"):
        assert row["reward"] == pytest.approx((2.0 * row["reward/good"] - scale.shift) / scale.scale, abs=1e-3)
        assert "reward/long" in row
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(row["error/good"] > 0 and row["error/long"] > 0 for row in rows)


def test_the_gate_learns_alone_on_the_model_that_it_names(done):
    (node, folder), (_, heads) = node_of(done, "reward_models/armo/seed"), node_of(done, "reward_models/heads/seed")
    assert node.inputs["start"].startswith("reward_models/heads")
    mine, theirs = (load_file(f / "model" / "model.safetensors") for f in (folder, heads))
    assert mine.keys() == theirs.keys()
    assert all((mine[name] == theirs[name]).all() for name in mine)
    reward = open_model_reward(folder, SETUP, "cpu")
    assert isinstance(reward, AttributeReward)
    assert reward.names == ("good", "long")
    assert reward.model.reward_model.penalty[1] == 0.0
    assert all(row["grad_norm"] > 0 for row in metrics(done, "armo_arm"))


def test_a_group_s_mean_chance_against_itself_is_one_half(done):
    """Every answer is compared with all others: what one wins another loses."""
    for row in metrics(done, "gpm_arm"):
        assert row["reward"] == pytest.approx(0.5, abs=1e-6)
    plan, folders = done
    judged = next(n for n in plan.nodes if n.kind == "judge" and "gpm_arm" in n.name)
    verdicts = json.loads((folders[judged.name] / "verdicts.json").read_text())
    assert all(0 < v < 1 for v in verdicts["outcome"])


def test_an_answer_is_its_own_equal_and_chances_are_one_together(done):
    reward = open_model_reward(node_of(done, "reward_models/gpm/seed")[1], SETUP, "cpu")
    assert isinstance(judge := reward.judge, GeneralPreferenceJudge)
    (pair,) = worlds.get("quickstart").preferences(5, 1)
    a, b = pair.completions
    asked = Group(prompt=pair.prompt, completions=(a, b, Completion(content=a.content)))
    (scores,) = reward([asked])
    (there,) = reward([Group(prompt=pair.prompt, completions=(a, b))])
    p = there.values[0]
    assert sum(there.values) == pytest.approx(1.0)
    assert p != pytest.approx(0.5, abs=1e-6)
    assert scores.values == pytest.approx([(p + 0.5) / 2, 1 - p, (p + 0.5) / 2])
    assert judge.tau == 0.1
    (odds,) = reward.unscaled()([Group(prompt=pair.prompt, completions=(a, b))])
    assert odds.values[0] - odds.values[1] == pytest.approx(math.log(p / (1 - p)), abs=1e-6), "what its card is read off"


def test_every_one_of_them_has_a_card(done):
    for name in ("heads", "armo", "gpm"):
        plan, folders = done
        found = next(
            folders[n.name] for n in plan.nodes if n.name.startswith(f"reward_models/{name}/") and n.name.endswith("/evaluation")
        )
        assert len(json.loads((found / "scores.json").read_text())["chosen"]) == 8


@pytest.mark.parametrize(("change", "told"), [
    ({"initial_policy": "base"}, "'base' is no attribute_reward_model"),
    ({"initial_policy": "gpm"}, "'gpm' is no attribute_reward_model"),
    ({"train": {**TRAIN, "adapter": {"rank": 2}}}, "nothing to adapt"),
])  # fmt: skip
def test_a_gate_needs_scores_to_mix(tmp_path, change, told):
    asked = experiment(ratings(tmp_path / "rated.jsonl", 6))
    asked["reward_models"]["armo"] |= change
    with pytest.raises(UserError, match=told):
        read_experiment(asked)


def test_the_command_scores_by_what_training_left(done):
    """`evenhand score` on a folder gives the parts too; a judge of pairs scores groups."""
    from evenhand.cli.scores import scorer

    (group,) = worlds.get("quickstart").preferences(5, 1)
    for name in ("heads", "armo", "gpm"):
        folder = node_of(done, f"reward_models/{name}/seed")[1]
        (known,) = open_model_reward(folder, SETUP, "cpu")([group])
        (found,) = scorer(str(folder), "cpu", max_prompt=32, max_completion=16)([group])
        if name == "gpm":
            assert found.values == pytest.approx(known.values, abs=1e-5)
        else:
            assert found.parts.keys() == {"good", "long"}
            assert all(found.parts[part] == pytest.approx(values, abs=1e-5) for part, values in known.parts.items())


def test_an_exported_folder_says_its_outputs(done):
    """What the export compares: every output of the run's model, by plain transformers, alone and padded."""
    from types import SimpleNamespace

    from evenhand.export.check_scores import _run_scores, listen
    from evenhand.export.usage import outputs
    from evenhand.stages.common import open_renderer

    folder = node_of(done, "reward_models/heads/seed")[1]
    subject, renderer = SimpleNamespace(model=folder / "model"), open_renderer(folder, None)
    answers = [replace(g, completions=g.completions[:1], scores=(), parts={}) for g in worlds.get("quickstart").preferences(5, 2)]
    rows = [renderer.tokenise(answer, max_prompt=None, max_completion=None) for answer in answers]
    own = _run_scores(subject, renderer, rows, "cpu")
    alone, padded = listen(folder / "model", rows, "float32", "cpu")
    assert [len(row) for row in own] == [2, 2]
    for mine, a, p in zip(own, alone, padded, strict=True):
        assert a == pytest.approx(mine, abs=1e-4)
        assert p == pytest.approx(mine, abs=1e-4)
    assert outputs(subject) == ["good", "long"]
