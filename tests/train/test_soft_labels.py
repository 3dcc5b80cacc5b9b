"""A soft label is learned by cross-entropy: -p log sigmoid(d) - (1 - p) log sigmoid(-d)."""

from __future__ import annotations

import math

import pytest
import torch

from evenhand.objectives.reward_model import BradleyTerry
from evenhand.stages.splits import singles
from evenhand.train.examples import Example, assemble, with_pairs
from evenhand.types import Completion, Group, ModelOut, Prompt, TokenGroup, Tokens


def item(p: float, **parts) -> Example:
    answers = (Completion(content="a"), Completion(content="b"))
    group = Group(prompt=Prompt(content="?"), completions=answers, scores=(p, 1 - p), parts=parts)
    tokens = tuple(Tokens(ids=(i,), mask=(True,)) for i in (4, 5))
    return with_pairs(Example(tokens=TokenGroup(prompt=(1,), completions=tokens, group=group)))


@pytest.mark.parametrize(("p", "difference"), [(0.7, 1.3), (0.2, 1.3), (1.0, -0.4)])
def test_the_loss_of_a_soft_label_is_the_cross_entropy(p: float, difference: float) -> None:
    batch = assemble([item(p, soft=(p, 1 - p))])
    objective = BradleyTerry(centring=0.0)
    out = ModelOut(score=torch.tensor([difference, 0.0]))
    terms = objective(out, batch).terms
    loss = sum(float((t.value * t.weight).sum()) for t in terms) / float(objective.denominators(batch)[0])
    sigmoid = 1 / (1 + math.exp(-difference))
    assert loss == pytest.approx(-p * math.log(sigmoid) - (1 - p) * math.log(1 - sigmoid), rel=1e-5)


def test_without_the_part_scores_only_rank() -> None:
    assert item(0.7).pairs == ((0, 1),)
    assert item(0.7).pair_weight == (1.0,)


@pytest.mark.parametrize(
    ("scores", "labels"),
    [((math.nan, 1.0, 0.0), {"b": 1.0, "c": 0.0}), ((0.0, math.nan, 1.0), {"a": 0.0, "c": 1.0}), ((math.nan,) * 3, {})],
)
def test_an_answer_without_a_score_has_no_label(scores: tuple[float, ...], labels: dict[str, float]) -> None:
    """Of a ranking, for methods that learn from single labelled answers."""
    answers = tuple(Completion(content=text) for text in "abc")
    found = singles(Group(prompt=Prompt(content="?"), completions=answers, scores=scores))
    assert {group.completions[0].text: group.scores[0] for group in found} == labels
