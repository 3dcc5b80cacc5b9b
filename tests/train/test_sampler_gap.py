"""What a rollout was worth: the figures by hand, whose tokens count, and that nothing else of a rollout changes."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from evenhand.core import corrections, sampler_gap
from evenhand.engines.checks import with_tokens
from evenhand.errors import UserError
from evenhand.stages.online import recomputed_of
from evenhand.stages.setup import Compute
from evenhand.train.examples import Example
from evenhand.train.rollouts.gap import BEYOND, EFFECTIVE, GAP, LARGEST, Recomputed, first_completions, measured
from evenhand.train.rollouts.sampler import Exploration
from evenhand.types import Completion, Finish, Group, Prompt, Sampling, TokenGroup, Tokens


def example(behaviour, mask=None, finish=Finish.STOP):
    """A group with an answer per row of behaviour log-probs."""
    rows = [tuple(row) for row in behaviour]
    masks = mask or [(True,) * len(row) for row in rows]
    answers = tuple(Completion(content="a", tokens=tuple(range(len(r))), behaviour_logp=r, finish=finish) for r in rows)
    tokens = tuple(Tokens(ids=tuple(range(len(r))), mask=tuple(m), behaviour_logp=r) for r, m in zip(rows, masks, strict=True))
    group = Group(prompt=Prompt(content="p"), completions=answers)
    return Example(tokens=TokenGroup(prompt=(1,), completions=tokens, group=group))


def rows(*values):
    return [tuple(torch.tensor(v) for v in values)]


def test_the_figures_by_hand():
    own = rows([-1.0, -1.0, -1.0 + math.log(3.0), -1.0])
    found = measured([example([[-1.0, -1.0, -1.0, -1.0]])], own, lambda i: True, cap=2.0)
    assert found[GAP] == pytest.approx(math.log(3.0) / 4)
    assert found[LARGEST] == pytest.approx(math.log(3.0))
    assert found[BEYOND] == pytest.approx(0.25)
    assert found[EFFECTIVE] == pytest.approx((1 + 1 + 3 + 1) ** 2 / (4 * (1 + 1 + 9 + 1)))
    assert measured([example([[-1.0] * 4])], own, lambda i: True, cap=3.5)[BEYOND] == 0.0


def test_what_is_cut_is_what_truncated_importance_sampling_cuts():
    generator = torch.Generator().manual_seed(0)
    old, behaviour = torch.randn(2, 50, generator=generator)
    mask = torch.ones(1, 50, dtype=torch.bool)
    weight = corrections.truncate(old[None], behaviour[None], mask, low=0.0, high=1.5)
    free = corrections.truncate(old[None], behaviour[None], mask, low=0.0, high=1e9)
    assert float(sampler_gap.beyond(old, behaviour, cap=1.5)) == pytest.approx(float((weight != free).float().mean()))


def test_only_tokens_of_the_model_and_answers_of_the_policy_count():
    given = example([[-9.0]], finish=Finish.GIVEN)
    turns = example([[-1.0, 0.0], [-5.0, -5.0]], mask=[(True, False), (True, True)])
    found = measured([given, turns], [*rows([-1.0]), *rows([-1.5, -7.0], [-1.0, -1.0])], lambda i: i == 0, cap=2.0)
    assert (found[GAP], found[LARGEST]) == (0.5, 0.5)
    assert measured([given], rows([-1.0]), lambda i: True, cap=2.0) == {}


def test_whose_answers_are_the_policys():
    mixed = Exploration(temperatures=(1.0, 0.5))
    assert [mixed.draws_the_policy(4, Sampling(), 1.0, i) for i in range(4)] == [True, False, True, False]
    assert not Exploration().draws_the_policy(4, Sampling(temperature=0.7), 1.0, 0)
    assert [Exploration(partner="previous").draws_the_policy(2, Sampling(), 1.0, i) for i in range(2)] == [True, False]


def test_the_first_examples_that_have_enough_answers():
    pairs = [example([[-1.0], [-1.0]]) for _ in range(5)]
    assert first_completions(pairs, 3) == pairs[:2]
    assert first_completions(pairs) == pairs


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"dtype": "float32"}, Recomputed.NOTHING), ({"dtype": "bfloat16"}, Recomputed.SOME),
        ({"dtype": "float32", "matmul": "bfloat16"}, Recomputed.SOME), ({"dtype": "float32", "engine": "server"}, Recomputed.ALL),
        ({"dtype": "float32", "engine": {"kind": "vllm", "options": {}}}, Recomputed.ALL),
    ],
)  # fmt: skip
def test_what_is_recomputed(settings, expected):
    assert recomputed_of(Compute(device="cpu", **settings)) is expected


def test_text_never_feeds_training():
    answered = Group(prompt=Prompt(content="p"), completions=(Completion(content="a", tokens=(1,), behaviour_logp=(-1.0,)),))
    assert with_tokens([answered]) == [answered]
    for bad in (Completion(content="a"), Completion(content="a", tokens=(1, 2), behaviour_logp=(-1.0,))):
        with pytest.raises(UserError, match="not their token ids"):
            with_tokens([replace(answered, completions=(bad,))])
