"""A step that is not finite: it ends before the weights move, and its origin is found."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from evenhand import methods
from evenhand.errors import UserError
from evenhand.protocols import Step
from evenhand.rewards.pointwise import pointwise
from evenhand.train.examples import micro_batches
from evenhand.train.logprobs import read
from evenhand.train.loop import Loop
from evenhand.train.nonfinite import GRADIENT, LOSS, WEIGHTS, NotFinite
from evenhand.train.optim import AdamW
from evenhand.train.rollouts.metrics import checked, watched
from evenhand.types import Completion, Group, Head, Prompt, Scores, Term, Terms
from tests.battery.world import items_for, network

DPO = methods.build("dpo", {}, steps=6, max_tokens=8)
GRPO = methods.build("grpo", {}, steps=6, max_tokens=8)


class Given:
    """A source of the same micro-batches at every step."""

    provides = frozenset()

    def __init__(self, batches):
        self.batches = batches

    def step(self, index):
        return Step(self.batches, {})


class Spoiled:
    """An objective whose value is spoiled in one row, as an overflow would."""

    def __init__(self, inner, spoil):
        self.inner, self.spoil = inner, spoil
        self.reads, self.needs, self.denominators = inner.reads, inner.needs, inner.denominators

    def __call__(self, out, batch):
        terms = self.inner(out, batch)
        return Terms(tuple(Term(t.name, self.spoil(t.value), t.weight) for t in terms.terms), terms.metrics)


class NoGradient(torch.autograd.Function):
    """The identity, with a backward pass that overflows."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad * math.inf


def failed(method, change=lambda batch: batch, *, spoil=None, prepare=lambda model: None):
    """The error of a step whose second micro-batch was changed, and whether any weight had moved."""
    model = network(method)
    prepare(model)
    batches = micro_batches(items_for(method), 30)
    assert len(batches) > 1, "else nothing says which micro-batch it was"
    batches[1] = change(batches[1])
    objective = method.objective if spoil is None else Spoiled(method.objective, spoil)
    optimizer = AdamW(model, learning_rate=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    loop = Loop(model=model, objective=objective, source=Given(batches), optimizer=optimizer, factor=lambda i: 1.0)
    with pytest.raises(NotFinite) as error:
        list(loop.run(0, 1))
    same = [torch.equal(a, b) or bool(a.isnan().any()) for a, b in zip(before, model.parameters(), strict=True)]
    return error.value, all(same), batches


def at(field, row, value):
    """Change one row of a field of a batch."""

    def change(batch):
        values = getattr(batch, field).clone()
        values[row] = value
        return replace(batch, **{field: values})

    return change


@pytest.mark.parametrize(
    ("method", "field", "value"),
    [(DPO, "ref_logp", math.nan), (DPO, "ref_logp", -math.inf), (GRPO, "advantage", math.inf), (GRPO, "old_logp", math.nan)],
)
def test_a_field_of_the_batch_is_named_with_its_row_and_prompt(method, field, value):
    error, unmoved, batches = failed(method, at(field, 1, value))
    assert unmoved
    assert error.diagnosis.first == f"batch {field}"
    (row,) = error.diagnosis.rows
    assert (row.microbatch, row.row) == (1, 1)
    span = batches[1].layout.prompts[batches[1].layout.owner[1]]
    assert list(row.prompt) == batches[1].ids[span.start : span.stop].tolist()


def test_the_loss_of_one_pair_is_named_by_its_chosen_side():
    def spoil(value):
        keep = torch.ones_like(value)
        keep[0] = math.nan
        return value * keep

    error, unmoved, batches = failed(DPO, spoil=spoil)
    assert unmoved
    assert (error.quantity, error.step, error.diagnosis.first) == ("loss", 1, LOSS)
    assert math.isnan(error.value)
    assert [(r.microbatch, r.row) for r in error.diagnosis.rows] == [(n, int(b.pairs[0, 0])) for n, b in enumerate(batches)]


def test_a_backward_pass_that_overflows_has_a_finite_loss():
    error, unmoved, _ = failed(DPO, spoil=NoGradient.apply)
    assert unmoved
    assert (error.quantity, error.diagnosis.first) == ("gradient norm", GRADIENT)
    assert error.diagnosis.rows == ()
    assert error.diagnosis.largest["log-prob of a token"] > 0


def test_broken_weights_are_found_before_everything_that_follows_from_them():
    def spoil(model):
        with torch.no_grad():
            next(iter(model.parameters()))[3] = math.nan

    error, unmoved, _ = failed(DPO, prepare=spoil)
    assert unmoved
    assert error.diagnosis.first == WEIGHTS


def test_an_answer_without_a_score_is_no_fault():
    """Its NaN counts nowhere; the same step with an infinite score would."""
    batches = [
        at("score", 0, math.nan)(b) for b in micro_batches(items_for(methods.build("kto", {}, steps=6, max_tokens=8)), 30)[:1]
    ]
    model = network(DPO)
    optimizer = AdamW(model, learning_rate=0.1, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    loop = Loop(
        model=model, objective=methods.build("sft", {}, steps=6, max_tokens=8).objective, source=Given(batches),
        optimizer=optimizer, factor=lambda i: 1.0,
    )  # fmt: skip
    assert [step for step, _ in loop.run(0, 2)] == [1, 2]


def group(*texts):
    return Group(prompt=Prompt(content="Why?", id="p7"), completions=tuple(Completion(content=t) for t in texts))


def test_an_infinite_reward_names_prompt_and_answer():
    with pytest.raises(UserError, match=r"prompt p7, answer 'bad'") as error:
        checked([group("good", "bad")], [Scores((1.0, -math.inf))])
    assert "the reward is -inf" in str(error.value)
    unscored = [Scores((1.0, math.nan))]
    assert checked([group("a", "b")], unscored) == unscored


def test_a_reward_function_that_returns_inf_is_told_so_by_name():
    def logarithm(prompt, completion):
        return -math.inf

    with pytest.raises(UserError, match=r"logarithm, prompt p7: a reward must be finite"):
        pointwise(logarithm)([group("a")])


def test_shares_of_repeated_and_unscored_answers():
    groups = [replace(group("a", "a", "b"), scores=(1.0, math.nan, 0.0)), group("c")]
    assert watched(groups) == {"watched/duplicates": pytest.approx(0.25), "watched/unscored": pytest.approx(0.5)}


@pytest.mark.parametrize(("precision", "fix"), [(torch.float16, "bfloat16 or float32"), (torch.float32, "evenhand doctor")])
def test_log_probs_that_are_not_finite_name_the_prompt_and_the_precision(precision, fix):
    model, items = network(DPO).to(precision), items_for(DPO)[:2]
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(math.inf)
    with pytest.raises(UserError, match="log-prob is not finite") as error:
        read(model, items, frozenset({Head.LOGP}), tokens_per_microbatch=100, temperature=1.0, device="cpu")
    assert f"prompt {items[0].tokens.group.prompt.id}" in str(error.value)
    assert fix in str(error.value)
