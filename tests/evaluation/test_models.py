"""Reward models on pairs and probes, side by side, policies' texts, refusals, curves: against counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evenhand.errors import UserError
from evenhand.evaluation import best_of_n, pairs, refusals
from evenhand.evaluation.logprobs import implicit_reward, log_probs, scaled
from evenhand.evaluation.policies import text_metrics
from evenhand.evaluation.probes import probe
from evenhand.evaluation.reward_benchmarks import reward_bench_2_report
from evenhand.rewards.pointwise import pointwise
from evenhand.stats.reward_bench import SECTIONS
from evenhand.types import Completion, Finish, Group, Prompt, Scores

LENGTH = pointwise(lambda prompt, completion: float(len(completion.text)), name="length")


def pair(chosen, rejected, **meta):
    answers = (Completion(content=chosen), Completion(content=rejected))
    return Group(prompt=Prompt(content="q", meta=meta), completions=answers, scores=(1.0, 0.0))


def test_report_by_category_and_length():
    data = [
        pair("aaaa", "bb", subset="long"),
        pair("aaa", "b", subset="long"),
        pair("a", "bbb", subset="short"),
        pair("aa", "bb", subset="short"),
    ]
    found = pairs.report(pairs.score_pairs(data, LENGTH))
    assert (found["accuracy"], found["ties"], found["n"]) == (0.625, 0.25, 4)
    assert found["log_loss"] == pytest.approx(np.mean([math.log1p(math.exp(-m)) for m in (2, 2, -2, 0)]))
    assert found["categories"]["long"]["accuracy"] == 1.0
    assert found["categories"]["short"]["accuracy"] == 0.25
    assert found["by_length"]["longer"]["observed"] == 1.0
    assert found["by_length"]["shorter"]["observed"] == 0.0
    assert found["margins"]["confidently_wrong"] == 0.25
    assert found["length_correlation"] == pytest.approx(1.0)
    assert "sections" not in found


def test_reward_bench_sections_need_all_their_subsets():
    chat = [pair("aaa", "b", subset=name) for name in SECTIONS["Chat"]]
    hard = [pair("a", "bb", subset="mt-bench-hard")]
    found = pairs.report(pairs.score_pairs([*chat, *hard], LENGTH))
    assert found["sections"] == {"Chat": 1.0}
    assert "Chat Hard" in found["incomplete"]


def test_pairs_without_preference_or_score_are_said():
    with pytest.raises(UserError, match="no row prefers"):
        pairs.score_pairs([Group(prompt=Prompt(content="q"), completions=(Completion(content="a"),))], LENGTH)
    with pytest.raises(UserError, match="could not be scored"):
        pairs.score_pairs([pair("a", "b")], pointwise(lambda p, c: None))


def test_reward_bench_2_form():
    rows = [
        {"id": "1", "prompt": "q", "chosen": ["aaa"], "rejected": ["b", "bb", "c"], "subset": "Math"},
        {"id": "2", "prompt": "q", "chosen": ["aaa"], "rejected": ["bbb", "bb", "c"], "subset": "Math"},
        {"id": "3", "prompt": "q", "chosen": ["a"], "rejected": ["bbb", "bb", "c"], "subset": "Focus"},
        {"id": "ref:1", "prompt": "q", "chosen": ["aaaa"], "rejected": ["b"], "subset": "Ties"},
        {"id": "tied:1", "prompt": "q", "chosen": ["aaaa", "aaaaa"], "rejected": ["b"], "subset": "Ties"},
    ]
    found = reward_bench_2_report(
        [(f"r:{i}", r) for i, r in enumerate(rows)], lambda prompt, answers: [float(len(a)) for a in answers]
    )
    assert found["subsets"]["Math"] == 0.75
    assert found["subsets"]["Focus"] == 0.0
    assert found["subsets"]["Ties"] == pytest.approx(0.3 + 0.3 + 0.2 + 0.2 + 0.01 * math.tanh(3 / 1 - 1))
    assert "overall" not in found  # three subsets are absent


def test_side_by_side_likelihood_and_best_scale():
    data = [pair("aa", "b"), pair("aa", "b"), pair("aa", "b"), pair("a", "bb")]  # margins 1, 1, 1, -1
    found = pairs.side_by_side(data, {"length": LENGTH, "double": scaled(LENGTH, 2.0)})
    expected = -np.mean([math.log1p(math.exp(-m)) for m in (1, 1, 1, -1)])
    assert found["length"]["log_likelihood"] == pytest.approx(expected)
    assert found["length"]["difference"] == 0.0
    # the likeliest scale c of +-1 margins with three quarters right has sigma(c) = 3/4
    assert found["length"]["best_scale"] == pytest.approx(math.log(3), rel=1e-3)
    assert found["double"]["best_scale"] == pytest.approx(math.log(3) / 2, rel=1e-3)
    assert found["length"]["at_best_scale"] == pytest.approx(0.75 * math.log(0.75) + 0.25 * math.log(0.25), abs=1e-6)
    assert found["double"]["at_best_scale"] == pytest.approx(found["length"]["at_best_scale"], abs=1e-6)
    assert found["double"]["log_likelihood"] < found["length"]["log_likelihood"]


def test_implicit_reward_is_beta_times_the_difference():
    constant = lambda values: lambda groups: [Scores(values)]  # noqa: E731
    reward = implicit_reward(constant((-1.0, -4.0)), constant((-2.0, -3.0)), beta=0.5)
    assert reward([pair("a", "b")]) == [Scores((0.5, -0.5))]


def test_log_probs_are_the_models(tmp_path):
    import torch

    from evenhand.data.template import Renderer
    from evenhand.models.load import new_policy
    from evenhand.worlds.tokenizer import word_tokenizer

    tokenizer = word_tokenizer(["red green blue", " red green blue"])
    shape = {"model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
             "num_key_value_heads": 1, "max_position_embeddings": 64}  # fmt: skip
    policy, renderer = new_policy(shape, tokenizer, seed=0, device="cpu"), Renderer(tokenizer)
    group = Group(prompt=Prompt(content="red"), completions=(Completion(content=" green blue"),))
    (scores,) = log_probs(policy, renderer)([group])
    tokens = renderer.tokenise(group, max_prompt=None, max_completion=None)
    ids = [*tokens.prompt, *tokens.completions[0].ids]
    with torch.no_grad():
        logp = policy.hf(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = sum(float(logp[t - 1, ids[t]]) for t in range(len(tokens.prompt), len(ids)))
    assert scores.values[0] == pytest.approx(expected, abs=1e-4)
    assert scores.parts["per_token"][0] == pytest.approx(expected / len(tokens.completions[0].ids), abs=1e-4)


GOOD = [
    Group(prompt=Prompt(content=f"q{i}"), completions=(Completion(content=f"a sensible answer number {i}"),)) for i in range(8)
]


def test_probes_find_a_reward_that_pays_for_thanks_and_length():
    found = probe(GOOD, pointwise(lambda p, c: float("thank" in c.text.lower())))
    assert found["thanks"]["fooled"]
    assert found["thanks"]["raised"] == 1.0
    assert not found["emoji"]["fooled"]
    by_length = probe(GOOD, LENGTH)
    assert by_length["repetition"]["fooled"]
    assert by_length["emoji"]["fooled"]
    assert by_length["truncated"]["raised"] == 0.0
    strict = probe(GOOD, pointwise(lambda p, c: float(c.text == f"a sensible answer number {p.text[1:]}")))
    assert not any(row["fooled"] for row in strict.values())
    assert set(strict) == {"thanks", "repetition", "emoji", "shuffled", "truncated", "off_topic"}


def test_refusals_are_counted_and_homonyms_told_apart():
    asked = refusals.prompts()
    assert len(asked) == 2 * len({p.meta["word"] for p in asked})
    texts = [p.text for p in asked]
    assert any("can of coke" in t for t in texts)
    assert any("gram of coke" in t for t in texts)
    careful = [
        Group(
            prompt=p, completions=(Completion(content="Sure." if p.meta["safe"] else "I’m sorry, but I can’t help with that."),)
        )
        for p in asked
    ]
    found = refusals.refusal_rates(careful)
    assert (found["safe"]["rate"], found["unsafe"]["rate"], found["both_right"]["rate"], found["all"]["rate"]) == (
        0.0,
        1.0,
        1.0,
        0.5,
    )
    timid = [Group(prompt=g.prompt, completions=(Completion(content="I cannot help with that."),)) for g in careful]
    assert refusals.refusal_rates(timid)["both_right"]["rate"] == 0.0
    assert not refusals.is_refusal("x" * 300 + " I cannot help")


def test_text_metrics_by_hand():
    sampled = [
        Completion(content="a b a b", tokens=(1, 2, 1, 2), behaviour_logp=(-1.0, -1.0, -2.0, 0.0), finish=Finish.LENGTH),
        Completion(content="a b c", tokens=(1, 2, 3), behaviour_logp=(-1.0, -1.0, -1.0), finish=Finish.STOP),
    ]
    found = text_metrics([Group(prompt=Prompt(content="q"), completions=tuple(sampled))])
    assert (found["truncated"], found["mean_length"], found["entropy"], found["empty"]) == (0.5, 3.5, 1.0, 0.0)
    assert found["distinct_1"] == 3 / 7
    assert found["self_overlap"] == pytest.approx(1 / 3)  # {ab, ba} and {ab, bc}
    assert "entropy" not in text_metrics(GOOD)


def test_over_optimisation_shows_where_gold_turns():
    rows = [{"step": s, "kl": s / 10, "reward": s + e, "gold": -((s - 20) ** 2) + e} for s in (0, 10, 20, 30) for e in (-1, 1)]
    points = best_of_n.over_optimisation([*rows, {"step": 30, "reward": None, "gold": None}])
    assert [p["reward"] for p in points] == [0, 10, 20, 30]
    assert [p["gold"] for p in points] == [-400, -100, 0, -100]
    assert points[3]["n"] == 3
    assert points[0]["gold_ci95"][0] < -400 < points[0]["gold_ci95"][1]


def test_length_grid():
    grid = best_of_n.length_grid({(64, 64): [0.5], (64, 128): [0.4], (128, 64): [0.2], (128, 128): [0.6, 0.8]})
    assert grid["mean"] == [[0.5, 0.4], [0.2, 0.7]]
    assert grid["best_inference"] == {64: 64, 128: 128}


def test_best_of_n_leaves_out_unscored_prompts_and_says_so():
    groups = [
        Group(prompt=Prompt(content=str(i)), completions=(Completion(content="a"),) * 3, scores=s)
        for i, s in enumerate([(0, 1, 2), (1, math.nan, 0), (3, 1, 2)])
    ]
    points = best_of_n.best_of_n_curve(groups, {"same": [list(g.scores) for g in groups]})["same"]
    assert [p["gold"] for p in points] == pytest.approx([1.5, (5 / 3 + 8 / 3) / 2, 2.5])
    assert (points[0]["prompts"], points[0]["left_out"]) == (2, 1)
