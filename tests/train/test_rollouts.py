"""The rollout source with a scripted sampler: who is asked, who is credited, what a resume restores."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from evenhand import methods
from evenhand.train import credit_assignment
from evenhand.train.cost_accounting import Ledger
from evenhand.train.examples import Item
from evenhand.train.rollouts import Rollouts, RolloutSource
from evenhand.types import Completion, Finish, Group, Head, Need, Prompt, Sampling, Scores, TokenGroup, Tokens

PROMPTS = [Prompt(content=f"prompt {i}") for i in range(6)]


class Sampler:
    """Completion i of a prompt is i + 1 tokens long; remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def generate(self, prompts, n, sampling):
        self.asked.append(([p.content for p in prompts], sampling))
        return [Group(prompt=p, completions=tuple(self.one(p, i) for i in range(n))) for p in prompts]

    def one(self, prompt, i):
        ids = tuple(range(3, 3 + i + 1))
        logp = tuple(-0.5 for _ in ids)
        text = f"{prompt.content} answer {'x' * (i + 1)}"
        return Completion(content=text, tokens=ids, behaviour_logp=logp, finish=Finish.STOP)


def tokenise(group):
    completions = tuple(
        Tokens(ids=c.tokens, mask=(True,) * len(c.tokens), behaviour_logp=c.behaviour_logp) for c in group.completions
    )
    return TokenGroup(prompt=(1, 2), completions=completions, group=group)


def rows(items, value):
    """The same number at every token of every completion."""
    return [tuple(torch.full((len(c.ids),), value) for c in i.tokens.completions) for i in items]


def by_length(groups):
    return [Scores(tuple(float(len(c.tokens)) for c in g.completions)) for g in groups]


def source(plan, *, reward=by_length, needs=frozenset({Need.ADVANTAGE}), reference=None, skip_flat=False, **changes):
    sampler = changes.pop("engine", Sampler())
    made = RolloutSource(
        plan=plan,
        prompts=PROMPTS,
        engine=sampler,
        reward=reward,
        tokenise=tokenise,
        read=lambda heads, items: {h: rows(items, 0.25) for h in heads},
        reference=reference,
        sampling=Sampling(max_tokens=8),
        prompts_per_step=2,
        tokens_per_microbatch=1000,
        seed=0,
        ledger=Ledger(),
        provides=frozenset(),
        needs=needs,
        skip_flat=skip_flat,
    )
    return made, sampler


def test_leave_one_out_advantages_reach_the_batch():
    made, _ = source(Rollouts(completions_per_prompt=3, credit="leave_one_out"))
    step = made.step(0)
    batch = step.batches[0]
    assert batch.advantage.flatten().tolist() == pytest.approx([-1.5, 0.0, 1.5] * 2)
    assert step.metrics["reward"] == pytest.approx(2.0)
    assert step.metrics["length"] == pytest.approx(2.0)
    assert step.metrics["entropy"] == pytest.approx(0.5)


def test_kl_in_the_reward_is_taken_off_before_the_baseline():
    """Reference log-prob -1 per token, sampled -0.5: k1 = 0.5 per token; reward = n - beta n / 2."""
    reference = lambda items: rows(items, -1.0)  # noqa: E731
    made, _ = source(Rollouts(completions_per_prompt=3, credit="centre", kl=0.2), reference=reference)
    step = made.step(0)
    assert step.batches[0].advantage[:3, 0].tolist() == pytest.approx([-0.9, 0.0, 0.9], abs=1e-6)
    assert step.metrics["kl"] == pytest.approx(1.0)  # mean of .5, 1, 1.5
    assert step.batches[0].ref_logp is None, "the objective did not ask for it"


def test_zero_advantage_is_counted_and_not_run():
    made, _ = source(Rollouts(completions_per_prompt=3, credit="centre"), skip_flat=True)
    batches = made.step(0).batches
    assert [b.counted_only for b in batches] == [False, True]
    assert [b.completions for b in batches] == [4, 2]


def test_refill_replaces_flat_groups_and_the_last_try_is_kept():
    flat = {"prompt 0", "prompt 1", "prompt 2", "prompt 3", "prompt 4", "prompt 5"}
    varied = lambda groups: [Scores((1.0, 1.0) if g.prompt.content in flat else (0.0, 1.0)) for g in groups]  # noqa: E731
    made, sampler = source(Rollouts(completions_per_prompt=2, credit="standardise", refill=2), reward=varied)
    assert sum(len(i.tokens.completions) for i in made.collect(0)[0]) == 4
    assert len(sampler.asked) == 3
    flat.clear()
    made, sampler = source(Rollouts(completions_per_prompt=2, credit="standardise", refill=2), reward=varied)
    made.collect(0)
    assert len(sampler.asked) == 1


def test_unscored_completions_have_no_weight_and_no_share_in_the_baseline():
    holes = lambda groups: [Scores((1.0, float("nan"), 3.0)) for _ in groups]  # noqa: E731
    made, _ = source(Rollouts(completions_per_prompt=3, credit="leave_one_out"), reward=holes)
    batch = made.step(0).batches[0]
    assert batch.advantage[:3, 0].tolist() == pytest.approx([-2.0, 0.0, 2.0])
    assert batch.weight[:3].tolist() == [1.0, 0.0, 1.0]


def test_best_against_worst_drops_equal_texts():
    made, _ = source(Rollouts(completions_per_prompt=3, select="best_vs_worst"), needs=frozenset({Need.PAIRS}))
    batch = made.step(0).batches[0]
    assert batch.pairs.tolist() == [[0, 1], [2, 3]]
    assert batch.completion_mask.sum(-1).tolist() == [3, 1, 3, 1]

    class Same(Sampler):
        def one(self, prompt, i):
            return replace(super().one(prompt, i), content="same \n" if i else "same")

    made, _ = source(Rollouts(completions_per_prompt=3, select="best_vs_worst"), needs=frozenset({Need.PAIRS}), engine=Same())
    assert made.step(0).batches == []


def test_mixed_temperatures_and_length_penalty():
    plan = Rollouts(completions_per_prompt=4, select="best", temperatures=(1.0, 0.7), length_penalty=10.0)
    made, sampler = source(plan, needs=frozenset())
    batch = made.step(0).batches[0]
    assert [s.temperature for s in sampler.asked[0][1]] == [1.0, 0.7, 1.0, 0.7]
    assert batch.completions == 2
    best = made.items[0].tokens.group
    assert best.completions[0].text.endswith("answer x"), "ten a character outweighs one a token"
    assert best.parts["unshaped"] == (1.0,)


def test_gae_per_token_sums_to_the_shaped_reward():
    """gamma = lambda = 1 and V = 0: before whitening, the first token's advantage is the whole shaped reward."""
    items = [Item(tokens=tokenise(g)) for g in Sampler().generate(PROMPTS[:2], 3, None)]
    fields = lambda i, v: tuple(torch.full((len(c.ids),), v) for c in i.tokens.completions)  # noqa: E731
    items = [
        replace(i, per_token={"old_logp": fields(i, -0.5), "ref_logp": fields(i, -1.0), "value": fields(i, 0.0)}) for i in items
    ]
    reward = torch.tensor([1.0, 2.0, 3.0] * 2)
    out = credit_assignment.token_credit(items, reward, Rollouts(credit="gae", lam=1.0), beta=0.2)
    returns = [row[0].item() for i in out for row in i.per_token["returns"]]
    assert returns == pytest.approx([1 - 0.1, 2 - 0.2, 3 - 0.3] * 2)
    everything = torch.cat([row for i in out for row in i.per_token["token_advantage"]])
    assert everything.mean().item() == pytest.approx(0, abs=1e-6)
    assert everything.var().item() == pytest.approx(1, abs=1e-5)


def test_several_updates_share_a_rollout_and_resume_inside_it():
    plan = Rollouts(completions_per_prompt=2, credit="centre", updates=4, epochs=2)
    needs = frozenset({Need.ADVANTAGE, Need.OLD_LOGP})
    made, sampler = source(plan, needs=needs)
    steps = [made.step(i) for i in range(3)]
    assert len(sampler.asked) == 1
    assert len(sampler.asked[0][0]) == 4, "prompts_per_step 2 x updates 4 / epochs 2"
    assert all(s.batches[0].old_logp is not None for s in steps)
    ids = [i for s in steps[:2] for b in s.batches for i in b.ids.tolist()]
    assert ids.count(1) == 4, "an epoch meets each of the four groups once"
    state = json.loads(json.dumps(made.state_dict()))
    again, silent = source(plan, needs=needs)
    again.load_state_dict(state)
    a, b = made.step(3).batches[0], again.step(3).batches[0]
    assert silent.asked == []
    assert torch.equal(a.ids, b.ids)
    assert torch.equal(a.advantage, b.advantage)
    assert torch.equal(a.old_logp, b.old_logp)


def test_running_baseline_is_remembered():
    made, _ = source(Rollouts(completions_per_prompt=2, credit="running_baseline"))
    made.step(0)
    assert made.running["baseline"] == pytest.approx(1.5)
    advantage = made.step(1).batches[0].advantage.flatten()
    assert advantage.tolist() == pytest.approx([-0.5, 0.5, -0.5, 0.5])


def test_adaptive_kl_moves_towards_its_target():
    reference = lambda items: rows(items, -9.0)  # noqa: E731
    plan = Rollouts(completions_per_prompt=2, credit="centre", kl=0.1, kl_target=1.0, kl_horizon=100)
    made, _ = source(plan, reference=reference)
    made.step(0)
    assert made.running["kl_coefficient"] == pytest.approx(0.1 * (1 + 0.2 * 4 / 100))


def test_prompts_come_round_in_epochs():
    made, sampler = source(Rollouts(completions_per_prompt=2, credit="centre"))
    for i in range(3):
        made.step(i)
    seen = [p for prompts, _ in sampler.asked for p in prompts]
    assert sorted(seen) == sorted(p.content for p in PROMPTS)
    assert len({s.seed for _, s in sampler.asked}) == 3, "every rollout draws its own numbers"


def test_value_needs_a_reading():
    plan = Rollouts(completions_per_prompt=2, credit="gae", updates=1)
    made, _ = source(plan, needs=frozenset({Need.ADVANTAGE, Need.VALUE}))
    batch = made.step(0).batches[0]
    assert batch.value[batch.completion_mask].tolist() == [0.25] * int(batch.completion_mask.sum())
    assert Head.VALUE == "value"
    assert not math.isnan(batch.advantage.sum().item())


def test_the_best_alone_may_be_truncated_and_then_weighs_nothing():
    class Cut(Sampler):
        def one(self, prompt, i):
            return replace(super().one(prompt, i), finish=Finish.LENGTH if prompt.content == self.first else Finish.STOP)

        def generate(self, prompts, n, sampling):
            self.first = prompts[0].content
            return super().generate(prompts, n, sampling)

    plan = Rollouts(completions_per_prompt=3, select="best", mask_truncated=True)
    made, _ = source(plan, needs=frozenset(), engine=Cut())
    batch = made.step(0).batches[0]
    assert batch.completion_mask.sum(-1).tolist() == [3, 3]
    assert batch.weight.tolist() == [0.0, 1.0]


def cut(groups):
    """The same groups, as if the limit had cut every answer."""
    return [replace(g, completions=tuple(replace(c, finish=Finish.LENGTH) for c in g.completions)) for g in groups]


@pytest.mark.parametrize(("plan", "gain"), [({}, 0.0), ({"bootstrap_truncated": True}, 0.25)])
def test_a_cut_answer_ends_there_or_goes_on_for_its_last_value(plan, gain):
    """V = 0.25 everywhere, gamma = lambda = 1: the return of every token is the reward, plus what the end is worth."""
    for finished, worth in ((lambda g: g, 0.0), (cut, gain)):
        items = [Item(tokens=tokenise(g)) for g in finished(Sampler().generate(PROMPTS[:1], 2, None))]
        fields = lambda i, v: tuple(torch.full((len(c.ids),), v) for c in i.tokens.completions)  # noqa: E731
        items = [replace(i, per_token={"old_logp": fields(i, -0.5), "value": fields(i, 0.25)}) for i in items]
        out = credit_assignment.token_credit(items, torch.tensor([1.0, 2.0]), Rollouts(credit="gae", lam=1.0, **plan), beta=0.0)
        returns = [row.tolist() for row in out[0].per_token["returns"]]
        assert returns == [pytest.approx([1.0 + worth]), pytest.approx([2.0 + worth] * 2)]


def test_a_learned_value_is_taken_off_the_reward_to_go_and_nothing_is_whitened():
    items = [Item(tokens=tokenise(g)) for g in Sampler().generate(PROMPTS[:1], 2, None)]
    items = [
        replace(i, per_token={"old_logp": rows([i], -0.5)[0], "ref_logp": rows([i], -1.0)[0], "value": rows([i], 0.25)[0]})
        for i in items
    ]
    out = credit_assignment.token_credit(items, torch.tensor([1.0, 2.0]), Rollouts(credit="value", gamma=0.5, lam=0.1), beta=0.2)
    advantage = [row.tolist() for row in out[0].per_token["token_advantage"]]
    assert advantage == [pytest.approx([0.9 - 0.25]), pytest.approx([1.8 - 0.25, 1.9 - 0.25])]


@pytest.mark.parametrize(("estimator", "each"), [("k1", 0.5), ("k2", 0.125), ("k3", math.exp(-0.5) - 1 + 0.5), ("exact", 0.25)])
def test_every_estimator_can_stand_in_the_reward(estimator, each):
    """D = 0.5 at every token; the exact one is what the reader says, 0.25. Answers have 1 and 2 tokens, rewards 1 and 2."""
    reference = lambda items: rows(items, -1.0)  # noqa: E731
    plan = Rollouts(completions_per_prompt=2, credit="none", kl=0.2, kl_estimator=estimator)
    made, _ = source(plan, reference=reference)
    advantage = made.step(0).batches[0].advantage.flatten()[:2]
    assert advantage.tolist() == pytest.approx([1 - 0.2 * each, 2 - 0.4 * each])
    assert "exact_kl" not in made.items[0].per_token, "a buffer need not keep it"


@pytest.mark.parametrize("select", ["best_vs_random", "rejection"])
def test_exploring_pairs_are_ordered_and_drawn_anew_for_every_rollout(select):
    made, _ = source(Rollouts(completions_per_prompt=5, select=select, rejection_temperature=5.0), needs=frozenset({Need.PAIRS}))
    seen = set()
    for index in range(8):
        for batch in made.step(index).batches:
            lengths = batch.completion_mask.sum(-1)
            for chosen, rejected in batch.pairs.tolist():
                assert lengths[chosen] > lengths[rejected]
                seen.add((int(lengths[chosen]), int(lengths[rejected])))
    assert len(seen) > 2
    assert select == "rejection" or {c for c, _ in seen} == {5}


def test_what_follows_a_rollout_comes_before_its_first_update_and_not_again_after_a_resume():
    plan = Rollouts(completions_per_prompt=2, credit="centre", updates=2)
    made, sampler = source(plan)
    calls = []
    made.collected = lambda rollout: calls.append((rollout, len(sampler.asked)))
    for index in range(3):
        made.step(index)
    assert calls == [(0, 1), (1, 2)]
    again, _ = source(plan)
    again.collected = calls.append
    again.load_state_dict(json.loads(json.dumps(made.state_dict())))
    again.step(3)
    assert len(calls) == 2


@pytest.mark.parametrize(("steps", "prompts"), [(60, 2 * 20 // 2), (6, 2 * 2 // 2), (3, 2)])
def test_a_step_of_a_short_round_still_holds_its_prompts(steps, prompts):
    """Three rounds of two epochs, two prompts a step; a round of one step cannot pass over its prompts twice: it does so once."""
    plan = methods.build("iterative_dpo", {"completions_per_prompt": 2}, steps=steps, max_tokens=8).rollouts
    made, sampler = source(plan, needs=frozenset({Need.PAIRS}))
    made.step(0)
    assert len(sampler.asked[0][0]) == prompts
