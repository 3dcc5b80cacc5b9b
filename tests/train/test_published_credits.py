"""Published credits on a real rollout of the tree of four answers: what they read beside rewards, and what it costs."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from evenhand import methods
from evenhand.core import credit as core
from evenhand.errors import UserError
from evenhand.train import example_codec
from evenhand.train.cost_accounting import Ledger
from evenhand.train.logprobs import read
from evenhand.train.rollouts import CREDITS, Credit, Experience, Gae
from evenhand.train.rollouts.published_credits import Decoupled, LengthAdaptiveGae, TokenReturn
from evenhand.train.rollouts.reader import Reader
from evenhand.train.rollouts.sampler import Sampler
from evenhand.train.rollouts.source import RolloutSource
from evenhand.types import Prompt, Sampling, Scores
from tests.battery.test_bandit import REWARD, start
from tests.battery.tree import Table, TableEngine, logps, tokenise


def source_of(name: str, reward=None, **parameters) -> RolloutSource:
    """Four prompts per step on the tree, no update made yet."""
    table, frozen = start(), Table(start().answers, 0.5 * start().logits.detach())
    rewarded = reward or (lambda groups: [Scores(tuple(REWARD[c.tokens] for c in g.completions)) for g in groups])
    own = lambda heads, items: read(table, items, heads, tokens_per_microbatch=10_000, temperature=1.0, device="cpu")  # noqa: E731
    return RolloutSource(
        method=methods.build(name, parameters, steps=8, max_tokens=8), prompts=[Prompt(content=str(n)) for n in range(4)],
        reward=rewarded, sampler=Sampler(engine=TableEngine(table), sampling=Sampling()),
        reader=Reader(tokenise=tokenise, read=own, reference=partial(logps, frozen)), prompts_per_step=4,
        tokens_per_microbatch=10_000, seed=3, ledger=Ledger(),
    )  # fmt: skip


def experience_of(name: str, **changes) -> Experience:
    """What the credit of that method is given."""
    source, seen = source_of(name, **changes), []
    kind = type(source.method.rollouts.credit)

    class Seen(Credit):
        reads, per_completion = kind.reads, kind.per_completion

        def __call__(self, experience):
            seen.append(experience)
            return kind()(experience)

    source.method = replace(source.method, rollouts=replace(source.method.rollouts, credit=Seen()))
    source.step(0)
    return seen[0]


def tokens_of(examples) -> torch.Tensor:
    return torch.cat([row for e in examples for row in e.per_token["token_advantage"]])


def test_remax_takes_the_greedy_answer_off_and_counts_it():
    source = source_of("remax", completions_per_prompt=3, kl=0.0)
    source.step(0)
    answers = [[c.tokens for c in e.tokens.group.completions] for e in source.buffer.examples]
    assert [len(a) for a in answers] == [3] * 4
    likeliest = (1, 0)  # by its branches: 0.9 is the largest logit of every node
    table = source.sampler.engine.table
    assert likeliest == table.answers[int(table.distribution(1e-9).argmax())]
    for e, own in zip(source.buffer.examples, answers, strict=True):
        known = [REWARD[a] - REWARD[likeliest] for a in own]
        assert e.per_completion["advantage"] == pytest.approx(known)
        assert e.tokens.group.parts["greedy"] == (REWARD[likeliest],) * 3
    assert source.ledger.reward_calls == 4 * (3 + 1)
    assert source.ledger.tokens_generated == sum(len(a) for own in answers for a in own) + 4 * len(likeliest)
    assert source.metrics["reward/greedy"] == REWARD[likeliest]


def test_remax_without_a_greedy_reward_learns_nothing_from_that_prompt():
    """The reward sees the greedy answer in the group of the others, as the last."""
    sizes = []

    def reward(groups):
        sizes.extend(len(g.completions) for g in groups)
        return [Scores((1.0, 0.0, math.nan if g.prompt.text == "0" else 0.25)) for g in groups]

    source = source_of("remax", reward, completions_per_prompt=2, kl=0.0)
    source.step(0)
    assert sizes == [3] * 4
    for e in source.buffer.examples:
        known = (0.0, 0.0) if e.tokens.group.prompt.text == "0" else (0.75, -0.25)
        assert e.per_completion["advantage"] == known


def test_reinforce_pp_is_the_whitened_reward_to_go_with_the_kl_in_it():
    found = experience_of("reinforce_pp", completions_per_prompt=4, kl=0.3)
    by_hand = []
    for e, rewards in zip(found.examples, found.reward.tolist(), strict=True):
        for old, ref, reward in zip(e.per_token["old_logp"], e.per_token["ref_logp"], rewards, strict=True):
            by_hand += [reward - 0.3 * float((old - ref)[t:].sum()) for t in range(len(old))]
    known = torch.tensor(by_hand)
    known = (known - known.mean()) / known.std()
    torch.testing.assert_close(tokens_of(TokenReturn()(found)), known, rtol=1e-4, atol=1e-5)


def test_gdpo_compares_parts_alone():
    def reward(groups):
        parts = [{"a": tuple(float(len(c.tokens)) for c in g.completions), "b": tuple(float(c.tokens[0]) for c in g.completions),
                  "a/inner": (0.0,) * len(g.completions)} for g in groups]  # fmt: skip
        return [Scores(tuple(x + y for x, y in zip(p["a"], p["b"], strict=True)), p) for p in parts]

    found = experience_of("gdpo", reward=reward, completions_per_prompt=4)
    z = [core.standardise(found.part(name)) for name in "ab"]
    for weights, known in (({}, z[0] + z[1]), ({"a": 2.0}, 2 * z[0])):
        advantage = torch.tensor([e.per_completion["advantage"] for e in Decoupled(weights)(found)])
        torch.testing.assert_close(advantage, (known - known.mean()) / known.std(), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="no part 'c'"):
        Decoupled({"c": 1.0})(found)


def test_vapo_has_a_lam_of_its_own_for_every_length():
    """As alpha n grows it is GAE at lam = 1; of 1 / alpha tokens or fewer the one-step difference. Returns are plain."""
    found = experience_of("vapo", completions_per_prompt=4)
    far, plain, none = (c(found) for c in (LengthAdaptiveGae(alpha=1e9), Gae(lam=1.0), Gae(lam=0.0)))
    torch.testing.assert_close(tokens_of(far), tokens_of(plain), rtol=1e-4, atol=1e-5)
    short = LengthAdaptiveGae(alpha=0.25)(found)  # answers have 2 to 4 tokens
    torch.testing.assert_close(tokens_of(short), tokens_of(none), rtol=1e-4, atol=1e-5)
    for a, b in zip(short, plain, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.per_token["returns"], b.per_token["returns"], strict=True))
        assert a.per_completion["score"] == a.tokens.group.scores
    warm = LengthAdaptiveGae(warmup=1)(found)
    assert (tokens_of(warm) == 0).all()
    assert all(set(e.per_completion["score"]) == {0.0} for e in warm)
    assert (tokens_of(LengthAdaptiveGae(warmup=1)(replace(found, rollout=1))) != 0).any()


@pytest.mark.parametrize("name", ["remax", "reinforce_pp", "vapo", "opo", "optimal_token"])
def test_a_rollout_is_resumed_exactly(name):
    """What a credit adds to an example survives the checkpoint's JSON."""
    source = source_of(name, completions_per_prompt=3)
    source.step(0)
    for e in source.buffer.examples:
        again = example_codec.from_json(example_codec.to_json(e))
        assert again.per_completion == e.per_completion
        assert {k: [r.tolist() for r in v] for k, v in again.per_token.items()} == {
            k: [r.tolist() for r in v] for k, v in e.per_token.items()
        }


LIKE = [
    ("opo", {}, "rloo", {"kl": 0.0}), ("maxrl", {}, "rloo", {"kl": 0.0}), ("remax", {"kl": 0.0}, "reinforce", {"kl": 0.0}),
    ("pass_at_k", {}, "reinforce", {"kl": 0.0}), ("max_minus_second", {}, "pass_at_k", {}), ("gdpo", {}, "grpo", {"kl": 0.0}),
    ("pass_at_k_training", {}, "pass_at_k", {}), ("reinforce_pp_baseline", {"kl": 0.0}, "lite_ppo", {}),
    ("reinforce_pp", {"kl": 0.0}, "lite_ppo", {}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "parameters", "other", "settings"), LIKE)
def test_methods_that_differ_in_the_advantage_alone(name, parameters, other, settings):
    """What the advantages reduce to is in tests/core/test_group_credit.py; here: everything else is the other method's."""
    built = [methods.build(n, p, steps=8, max_tokens=8) for n, p in ((name, parameters), (other, settings))]
    same = [replace(b.objective, kl_estimator="k3") for b in built]  # of a KL that is not there
    assert same[0] == same[1]
    assert built[0].reference == built[1].reference == "none"


def test_vapo_is_ppo_with_a_critic_but_for_its_credit():
    settings = {"updates": 4, "epochs": 1, "kl": 0.0, "critic": "separate", "value_clip": math.inf, "lam": 1.0}
    ppo = methods.build("ppo", settings, steps=8, max_tokens=8)
    vapo = methods.build("vapo", {"likelihood": 0.0, "value": 0.1, "high": 0.2}, steps=8, max_tokens=8)
    assert vapo.objective == ppo.objective
    assert (vapo.network, vapo.rollouts.schedule) == (ppo.network, ppo.rollouts.schedule)


def test_grpo_takes_every_credit_that_compares():
    for name in ("gpg", "maxrl", "opo", "batch_deviation", "pass_at_k", "max_minus_second", "gdpo"):
        assert methods.build("grpo", {"advantage": name}, steps=8, max_tokens=8).rollouts.credit is CREDITS[name]


def test_the_best_of_more_answers_than_there_are_is_refused():
    with pytest.raises(UserError, match="best of 9 of 8"):
        methods.build("pass_at_k", {"k": 9}, steps=8, max_tokens=8)


def test_the_optimal_token_baseline_reads_the_whole_distribution():
    """By hand over the tree: energies from the branches at every node that an answer has passed."""
    found = experience_of("optimal_token", completions_per_prompt=4)
    table = source_of("optimal_token").sampler.engine.table
    squares = dict(zip(table.nodes, table.node_collision().detach().exp().tolist(), strict=False))
    credited = CREDITS["optimal_token"](found)
    for e, rewards in zip(credited, found.reward.tolist(), strict=True):
        energies = []
        for answer, own in zip(e.tokens.group.completions, e.per_token["old_logp"], strict=True):
            parts = [1 - 2 * math.exp(p) + squares[answer.tokens[:t]] for t, p in enumerate(own.tolist())]
            energies.append([sum(parts[: t + 1]) for t in range(len(parts))])
        for own, reward in zip(e.per_token["token_advantage"], rewards, strict=True):
            for t, value in enumerate(own.tolist()):
                here = [(w[t], r) for w, r in zip(energies, rewards, strict=True) if len(w) > t]
                known = reward - sum(w * r for w, r in here) / max(1e-12, sum(w for w, _ in here))
                assert value == pytest.approx(known, abs=1e-4)
