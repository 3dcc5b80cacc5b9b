"""Best-of-n of any arm and every seed: what the plan adds, and the curve that the results have."""

from typing import Any

import numpy as np
import pytest

from evenhand.errors import UserError
from evenhand.plan.plan import build
from evenhand.results.reward_model_summary import _over_seeds
from evenhand.spec.read import read_experiment

GIVEN: dict[str, Any] = {
    "name": "t",
    "seeds": [0, 1],
    "data": {"world": "quickstart"},
    "model": {"pretrain": {"documents": 10, "train": {"steps": 1}}},
    "sft": {"train": {"steps": 1}},
    "reward_models": {"rm": {"train": {"steps": 1}}},
    "train": {"steps": 2, "learning_rate": 1e-4},
    "arms": {"sft": {"method": "start"}, "dpo": {"method": "dpo"}},
    "evaluation": {"best_of_n": 4},
}


def planned(**evaluation: Any) -> Any:
    return build(read_experiment({**GIVEN, "evaluation": {**GIVEN["evaluation"], **evaluation}}).value)


def test_every_seed_of_a_named_arm_is_sampled_and_scored_by_its_own_reward_model() -> None:
    plan = planned(best_of_arms=["dpo"])
    assert plan.arm_samples["dpo"].keys() == {0, 1}
    second = plan[plan.arm_samples["dpo"][1]]
    assert second.inputs["start"] == "arms/dpo/seed-1"
    assert second.seed == 1
    scored = plan[plan.scored[second.name, 1]["rm"]]
    assert scored.inputs == {"samples": second.name, "reward_models/rm": "reward_models/rm/seed-1"}


def test_naming_an_arm_changes_no_other_stage() -> None:
    plain, named = planned(), planned(best_of_arms=["dpo", "sft"])
    before, after = ({n.name: n.key for n in plan.nodes} for plan in (plain, named))
    assert {name: after[name] for name in before} == before
    samples = {"samples/dpo/seed-0", "samples/dpo/seed-1", "samples/sft/seed-1"}
    assert after.keys() - before.keys() == samples | {f"{name}/scores/rm" for name in samples}
    assert named.arm_samples["sft"][0] == plain.reward_samples, "the start of the first seed is sampled already"


@pytest.mark.parametrize(
    ("evaluation", "what"),
    [({"best_of_arms": ["dpoo"]}, "no arm is called 'dpoo'"), ({"best_of_arms": ["dpo"], "best_of_n": 0}, "nothing chooses")],
)
def test_arms_that_cannot_be_sampled_are_refused(evaluation: dict[str, Any], what: str) -> None:
    with pytest.raises(UserError, match=what):
        planned(**evaluation)


def test_the_curve_is_the_mean_over_seeds_and_prompts_of_the_favourite_of_every_subset() -> None:
    # two seeds, two prompts, two answers: the favourite of both is known by eye, of one it is either
    seeds = [
        {"proxies": {"rm": [[0.1, 0.9], [0.5, 0.2]]}, "gold": [[0.0, 1.0], [0.25, 0.75]]},
        {"proxies": {"rm": [[0.7, 0.3], [0.4, 0.4]]}, "gold": [[0.5, 0.0], [1.0, 0.0]]},
    ]
    found = _over_seeds(seeds)
    assert [p.gold for p in found["rm"]] == pytest.approx([np.mean([0.5, 0.5, 0.25, 0.5]), np.mean([1.0, 0.25, 0.5, 0.5])])
    assert [p.gold for p in found["the judge itself"]] == pytest.approx([0.4375, np.mean([1.0, 0.75, 0.5, 1.0])])
    assert {(p.prompts, p.left_out) for p in found["rm"]} == {(2, 0)}


def test_a_prompt_without_a_score_in_one_seed_is_left_out_of_all_and_counted() -> None:
    seeds = [
        {"proxies": {"rm": [[0.1, 0.9], [0.5, None], [0.0, 1.0]]}, "gold": [[0.0, 1.0], [0.2, 0.7], [0.0, 0.5]]},
        {"proxies": {"rm": [[0.7, 0.3], [0.4, 0.4], [0.0, 1.0]]}, "gold": [[0.5, 0.0], [1.0, 0.0], [0.0, 0.5]]},
    ]
    best_of_two = _over_seeds(seeds)["rm"][1]
    seeds[1]["proxies"]["failed"] = [[0.0, 0.0]] * 3
    assert _over_seeds(seeds).keys() == {"rm", "the judge itself"}, "one that did not score every seed has no curve"
    assert best_of_two.gold == pytest.approx(np.mean([1.0, 0.5, 0.5, 0.5]))
    assert (best_of_two.prompts, best_of_two.left_out) == (2, 1)
