"""Which evaluation stages a plan holds, and what they are given."""

from __future__ import annotations

from typing import Any

from evenhand.plan.plan import Plan, build
from evenhand.spec.read import read_experiment

TEXT = """
name: evaluated
seeds: [0, 1]
data: {world: quickstart}
model: {pretrain: {documents: 10, train: {epochs: 1}}}
sft: {train: {steps: 1}}
reward_models: {implicit: {method: dpo, train: {steps: 1}}}
train: {steps: 1, sample_every: 1}
arms: {sft: {method: start}, dpo: {method: dpo}}
evaluation: {best_of_n: 4, prompts: 7}
"""


def plan(*overrides: str) -> Plan:
    return build(read_experiment(TEXT, overrides).value)


def kinds(plan: Plan) -> list[str]:
    return [n.kind for n in plan.nodes]


def inputs(plan: Plan, kind: str) -> dict[str, Any]:
    return dict(next(n for n in plan.nodes if n.kind == kind).inputs)


def test_an_implicit_reward_comes_with_its_reference_everywhere() -> None:
    made = plan()
    scoring = [n for n in made.nodes if n.kind == "score_answers"]
    assert {frozenset(n.inputs) & {"answers", "samples", "arm"} for n in scoring} == {
        frozenset({role}) for role in ("answers", "samples", "arm")
    }
    for node in scoring:
        assert {"reward_models/implicit", "reward_references/implicit"} <= node.inputs.keys(), node.name
    assert made[made.reward_samples or ""].cost == "7 prompts x 4"
    assert set(made.frontiers) == {"dpo"}
    assert set(made.frontiers["dpo"]) == {0, 1}


def test_no_verdict_sample_or_distance_waits_for_a_reward_model_that_only_the_report_reads() -> None:
    """The judge is a world's own score here: a reward model more is scores more, and no other key changes."""
    one = plan()
    two = plan("reward_models={implicit: {method: dpo, train: {steps: 1}}, other: {train: {steps: 1}}}")
    for kind in ("judge", "sample_rewards", "frontier"):
        assert not any("reward_models/" in role for role in inputs(two, kind)), kind
    before, after = ({n.name: n.key for n in made.nodes} for made in (one, two))
    assert {name: after[name] for name in before} == before
    added = {name for name in after if name not in before}
    assert {"scores/dpo/seed-0/other", "samples/start/scores/other"} < added
    assert not any(name.startswith(("verdicts/", "generations/", "arms/", "frontier/")) for name in added)


def test_a_model_that_compares_answers_scores_several_and_none_alone() -> None:
    made = plan("reward_models={pairs: {method: preference_model, train: {steps: 1}}}")
    scoring = [n.name for n in made.nodes if n.kind == "score_answers"]
    assert scoring == ["samples/start/scores/pairs"]


def test_what_is_not_asked_for_is_not_planned() -> None:
    made = plan("evaluation.best_of_n=0", "evaluation.frontier=false", "judge.self_test=0")
    assert not {"sample_rewards", "frontier", "judge_self_test"} & set(kinds(made))
    assert (made.reward_samples, made.judge_test, made.frontiers) == (None, None, {})


def test_a_judge_of_pairs_scores_no_samples_but_is_tested() -> None:
    made = plan("judge={kind: llm, model: m}")
    assert made[made.frontiers["dpo"][0]].spec.gold is None  # the KL of the samples is recorded all the same
    assert made[made.reward_samples or ""].spec.gold is None
    assert "judge_self_test" in kinds(made)


def test_stages_that_differ_never_share_a_name() -> None:
    made = plan("arms={sft: {method: start}, dpo: {method: dpo}, small: {method: dpo, train: {tokens_per_microbatch: 512}}}")
    references = [n for n in made.nodes if n.kind == "reference"]
    assert len({n.name for n in references}) == len({n.key for n in references}) == 2
    used = {made["arms/dpo/seed-0"].inputs["reference"], made["arms/small/seed-0"].inputs["reference"]}
    assert len(used) == 2
