"""Reward models of several outputs arrive where theory says, through the real objectives, sources and loop."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import pytest
import torch

from evenhand import methods
from evenhand.core.general_preference import general_preference
from evenhand.data.batch import pack
from evenhand.models.gate import GatedRewardModel, GateSettings, load_gate, output_names
from evenhand.models.heads import RewardModel
from evenhand.models.load import load_reward_model
from evenhand.models.save import save
from evenhand.train import loop
from evenhand.train.examples import Example, assemble, with_pairs
from evenhand.types import Completion, Group, Head, Prompt, TokenGroup, Tokens
from tests.battery.tree import OUTPUTS, Table, fit_fixed, group_of
from tests.battery.world import GATED_OUTPUTS, network

ROCK, PAPER, SCISSORS = ANSWERS = ((1, 0), (2, 0), (3, 0))
BEATS = ((PAPER, ROCK), (SCISSORS, PAPER), (ROCK, SCISSORS))


def build(name: str, **parameters):
    return methods.build(name, parameters, steps=1, max_tokens=8)


def circle() -> list[Group]:
    """Each beats the next three times of four."""
    return [
        group_of(pair, (1.0, 0.0), str(n))
        for better, worse in BEATS
        for n, pair in enumerate([(better, worse)] * 3 + [(worse, better)])
    ]


def chances(table: Table, tau: float) -> list[float]:
    """P(winner preferred) of each duel of the circle."""
    at = [(ANSWERS.index(a), ANSWERS.index(b)) for a, b in BEATS]
    rows = table.scores.detach()
    return [float(torch.sigmoid(general_preference(rows[a], rows[b]) / tau)) for a, b in at]


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_a_circle_of_preferences_is_learned(tau):
    """Rock, paper, scissors: three of four, all the way round."""
    method = build("general_preference_model", dimensions=OUTPUTS, tau=tau)
    table = fit_fixed(method, circle(), Table(ANSWERS), steps=300)
    assert chances(table, tau) == pytest.approx([0.75] * 3, abs=2e-3)


def test_scores_cannot_say_a_circle():
    """Bradley-Terry's best is that all are alike, at a loss of log 2, where the circle's own entropy is less."""
    score = fit_fixed(build("reward_model", centring=0.0), circle(), Table(ANSWERS)).score.detach()
    assert (score - score[0]).tolist() == pytest.approx([0.0] * 3, abs=2e-3)
    assert math.log(2) > -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))


def test_ratings_that_are_there_are_averaged():
    """Every score is the mean of that answer's ratings as shares of the scale; one that nobody gave stays where it began."""
    names = [f"a{n}" for n in range(OUTPUTS)]
    method = build("attribute_reward_model", attributes=dict.fromkeys(names, (1.0, 5.0)))
    nobody = (math.nan,) * OUTPUTS
    given = {
        ROCK: [(1.0, 5.0, 3.0, 2.0, 4.0, 1.0), (3.0, 5.0, math.nan, 2.0, 4.0, 1.0)],
        PAPER: [(5.0,) * OUTPUTS],
        SCISSORS: [nobody],
    }
    rows = [
        replace(group_of((answer,), (math.nan,)), parts={name: (v,) for name, v in zip(names, row, strict=True)})
        for answer, answer_rows in given.items()
        for row in answer_rows
    ]
    table = fit_fixed(method, rows, start := Table(ANSWERS), steps=300)
    known = torch.tensor([[0.25, 1.0, 0.5, 0.25, 0.75, 0.0], [1.0] * OUTPUTS], dtype=torch.float64)
    torch.testing.assert_close(table.scores.detach()[:2], known, rtol=0, atol=2e-3)
    assert table.scores[2].tolist() == start.scores[2].tolist()


# ---- the gate ---------------------------------------------------------------------------------------------------------


def reader(settings: GateSettings) -> GatedRewardModel:
    """A gate that has learned nothing on a tiny random reward model of three outputs, in fp32."""
    plain = network(build("gated_reward_model")).float()
    return GatedRewardModel(plain.hf, settings, seed=3)


def tokens(prompt: int, answers: list[tuple[int, ...]], scores: tuple[float, ...]) -> TokenGroup:
    group = Group(
        prompt=Prompt(content=f"{prompt}"), completions=tuple(Completion(content=str(a)) for a in answers), scores=scores
    )
    return TokenGroup(prompt=(prompt,), completions=tuple(Tokens(ids=a, mask=(True,) * len(a)) for a in answers), group=group)


def test_the_score_is_the_gate_s_mixture_after_the_penalty():
    """Softmax over a temperature, by hand, of a gate of no hidden layer; the trunk has no gradient."""
    model = reader(GateSettings(layers=0, temperature=2.0, debias="verbosity"))
    model.set_penalty([0.5, 0.0, 0.25])
    rows = [tokens(5, [(1, 2), (3,)], (1.0, 0.0)), tokens(7, [(4, 4, 4)], (1.0,))]
    batch = pack(rows)
    out = model(batch, frozenset({Head.SCORE, Head.SCORES}))
    with torch.no_grad():
        (layer,) = model.gate.layers
        prompts = [model.hf.model(torch.tensor([[p]])).last_hidden_state[0, -1] for p in (5, 5, 7)]
        share = torch.stack([((layer.weight @ h + layer.bias) / 2.0).softmax(0) for h in prompts])
        raw = torch.stack([
            model.hf.score(model.hf.model(torch.tensor([[p, *a]])).last_hidden_state[0, -1])
            for p, a in ((5, (1, 2)), (5, (3,)), (7, (4, 4, 4)))
        ])  # fmt: skip
        left = raw - torch.tensor([0.5, 0.0, 0.25]) * raw[:, 1:2]
    torch.testing.assert_close(out.scores, raw, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out.score, (share * left).sum(-1), rtol=1e-4, atol=1e-5)
    out.score.sum().backward()
    learns = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learns == {"gate.layers.0.weight", "gate.layers.0.bias"}
    assert all(p.grad is None for name, p in model.named_parameters() if name not in learns)


def test_a_gate_learns_that_prompts_differ_in_what_counts():
    """One prompt's pairs follow the first output, the other's the last: no fixed weights say both, the gate does."""
    settings = GateSettings(hidden=16, layers=1, temperature=1.0)
    model = reader(settings)
    answers = [(a, b) for a, b in permutations(range(1, 8), 2)]
    items, decides = [], {5: 0, 7: 2}
    with torch.no_grad():
        for prompt, output in decides.items():
            (rows,) = [model(pack([tokens(prompt, answers, (0.0,) * len(answers))]), frozenset({Head.SCORES})).scores]
            for i, j in zip(range(0, len(answers) - 1, 2), range(1, len(answers), 2), strict=True):
                first, other = (float(rows[i, k] - rows[j, k]) for k in (output, 2 - output))
                if first * other < 0:  # the two outputs disagree about which is better
                    items.append(
                        with_pairs(Example(tokens=tokens(prompt, [answers[i], answers[j]], (float(first > 0), float(first < 0)))))
                    )
    assert len(items) >= 8
    batch, objective = assemble(items), build("gated_reward_model").objective
    optimizer = torch.optim.Adam(model.gate.parameters(), lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        loop.accumulate(model, objective, [batch], 1.0)
        optimizer.step()
    with torch.no_grad():
        score = model(batch).score
        assert (score[batch.pairs[:, 0]] > score[batch.pairs[:, 1]]).all()
        fixed = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.0, 0.5]])
        right = model(batch, frozenset({Head.SCORES})).scores @ fixed.T
        assert not (right[batch.pairs[:, 0]] > right[batch.pairs[:, 1]]).all(0).any()


def test_outputs_and_gate_come_back_and_transformers_reads_the_outputs(tmp_path):
    """`AutoModelForSequenceClassification` gives the K scores, by their names; the gate lies beside them."""
    from transformers import AutoModelForSequenceClassification

    from evenhand.errors import UserError

    model = reader(GateSettings(hidden=4, layers=2, temperature=3.0, debias="verbosity"))
    model.set_penalty([0.1, 0.0, 0.2])
    save(model, None, tmp_path / "rm")
    with pytest.raises(UserError, match="3 labels"):
        load_reward_model(tmp_path / "rm", device="cpu")
    plain = load_reward_model(tmp_path / "rm", device="cpu", labels=None)
    assert type(plain) is RewardModel
    assert output_names(plain.hf) == GATED_OUTPUTS
    again, batch = load_gate(plain, tmp_path / "rm"), pack([tokens(5, [(1, 2, 3)], (1.0,))])
    assert again.settings == model.settings
    torch.testing.assert_close(again(batch).score, model(batch).score, rtol=0, atol=0)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm")
    logits = theirs(torch.tensor([[5, 1, 2, 3]])).logits
    assert [theirs.config.id2label[n] for n in range(3)] == list(GATED_OUTPUTS)
    torch.testing.assert_close(logits, model(batch, frozenset({Head.SCORES})).scores, rtol=1e-4, atol=1e-5)


def test_a_gate_is_drawn_from_its_seed():
    one, same, other = (
        GatedRewardModel(network(build("gated_reward_model")).hf, GateSettings(hidden=3), seed) for seed in (1, 1, 2)
    )
    weights = [m.gate.layers[0].weight for m in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize(("name", "wrong", "told"), [
    ("general_preference_model", {"dimensions": 3}, "3 dimensions"), ("general_preference_model", {"tau": 0.0}, "tau is 0"),
    ("attribute_reward_model", {"attributes": {"good": (4.0, 0.0)}}, "'good' go from 4 to 0"),
    ("attribute_reward_model", {"weights": {"god": 1.0}}, "no attribute is called 'god'"),
    ("attribute_reward_model", {"weights": {"verbosity": 0.0}}, "every weight is 0"),
    ("gated_reward_model", {"temperature": 0.0}, "temperature 0"),
])  # fmt: skip
def test_settings_that_mean_nothing_are_refused(name, wrong, told):
    from evenhand.errors import UserError

    with pytest.raises(UserError, match=told):
        build(name, **wrong)
