"""The rollout source with a scripted sampler: who is asked, who is credited, what a resume restores."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from evenhand import methods
from evenhand.methods import PROMPTS as PROMPTS_SPLIT
from evenhand.methods import Method
from evenhand.train.cost_accounting import Ledger
from evenhand.train.examples import Example
from evenhand.train.policies import INITIAL_POLICY
from evenhand.train.rollouts import (
    CREDITS,
    SELECTIONS,
    Experience,
    Exploration,
    Gae,
    KlPenalty,
    LengthPenalty,
    Rollouts,
    Schedule,
    Truncation,
    rejection,
)
from evenhand.train.rollouts.reader import Reader
from evenhand.train.rollouts.sampler import Sampler as GroupSampler
from evenhand.train.rollouts.shaping import UNSHAPED, spread
from evenhand.train.rollouts.source import RolloutSource
from evenhand.types import Completion, Finish, Group, Head, Need, Prompt, Sampling, Scores, TokenGroup, Tokens

PROMPTS = [Prompt(content=f"prompt {i}") for i in range(6)]


class Sampler:
    """Completion i of a prompt is i + 1 tokens long; remembers what it was asked."""

    def __init__(self):
        self.asked, self.limits = [], []

    def generate(self, prompts, n, sampling, *, max_prompt=None):
        self.asked.append(([p.content for p in prompts], sampling))
        self.limits.append(max_prompt)
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


def source(
    plan,
    *,
    reward=by_length,
    needs=frozenset({Need.ADVANTAGE}),
    reference=None,
    skips_zero_advantage=False,
    engine=None,
    **changes,
):
    sampler = engine or Sampler()
    objective = SimpleNamespace(needs=needs, reads=frozenset(), skips_zero_advantage=skips_zero_advantage)
    made = RolloutSource(
        method=Method(objective=objective, data=PROMPTS_SPLIT, rollouts=plan),
        prompts=PROMPTS,
        sampler=GroupSampler(engine=sampler, sampling=Sampling(max_tokens=8)),
        reward=reward,
        reader=Reader(tokenise=tokenise, read=lambda heads, items: {h: rows(items, 0.25) for h in heads}, reference=reference),
        prompts_per_step=2,
        tokens_per_microbatch=1000,
        seed=0,
        ledger=Ledger(),
        **changes,
    )
    return made, sampler


def collected(made, rollout):
    """A rollout, sampled and learned from at once."""
    made.in_flight[rollout] = made.sampled(rollout, version=0)
    return made.collect(rollout)


def experience(items, reward, *, kl=0.0):
    return Experience(
        examples=items, reward=torch.tensor(reward), kl_coefficient=kl, kl_estimator="k1", memory={}, seed=0, rollout=0
    )


def test_leave_one_out_advantages_reach_the_batch():
    made, _ = source(Rollouts(completions_per_prompt=3, credit=CREDITS["leave_one_out"]))
    step = made.step(0)
    batch = step.batches[0]
    assert batch.advantage.flatten().tolist() == pytest.approx([-1.5, 0.0, 1.5] * 2)
    assert step.metrics["reward"] == pytest.approx(2.0)
    assert step.metrics["length"] == pytest.approx(2.0)
    assert step.metrics["entropy"] == pytest.approx(0.5)


def test_kl_in_the_reward_is_taken_off_before_the_baseline():
    """Reference log-prob -1 per token, sampled -0.5: k1 = 0.5 per token; reward = n - beta n / 2."""
    reference = lambda items: rows(items, -1.0)  # noqa: E731
    made, _ = source(
        Rollouts(completions_per_prompt=3, credit=CREDITS["centre"], kl=KlPenalty(coefficient=0.2)), reference=reference
    )
    step = made.step(0)
    assert step.batches[0].advantage[:3, 0].tolist() == pytest.approx([-0.9, 0.0, 0.9], abs=1e-6)
    assert step.metrics["kl"] == pytest.approx(1.0)  # mean of .5, 1, 1.5
    assert step.batches[0].ref_logp is None, "the objective did not ask for it"


def test_zero_advantage_is_counted_and_not_run():
    made, _ = source(Rollouts(completions_per_prompt=3, credit=CREDITS["centre"]), skips_zero_advantage=True)
    batches = made.step(0).batches
    assert [b.denominator_only for b in batches] == [False, True]
    assert [b.completions for b in batches] == [4, 2]


def test_refill_replaces_flat_groups_and_the_last_try_is_kept():
    flat = {"prompt 0", "prompt 1", "prompt 2", "prompt 3", "prompt 4", "prompt 5"}
    varied = lambda groups: [Scores((1.0, 1.0) if g.prompt.content in flat else (0.0, 1.0)) for g in groups]  # noqa: E731
    made, sampler = source(
        Rollouts(completions_per_prompt=2, credit=CREDITS["standardise"], exploration=Exploration(refill=2)), reward=varied
    )
    assert sum(len(i.tokens.completions) for i in collected(made, 0)[0]) == 4
    assert len(sampler.asked) == 3
    flat.clear()
    made, sampler = source(
        Rollouts(completions_per_prompt=2, credit=CREDITS["standardise"], exploration=Exploration(refill=2)), reward=varied
    )
    collected(made, 0)
    assert len(sampler.asked) == 1


def test_unscored_completions_have_no_weight_and_no_share_in_the_baseline():
    holes = lambda groups: [Scores((1.0, float("nan"), 3.0)) for _ in groups]  # noqa: E731
    made, _ = source(Rollouts(completions_per_prompt=3, credit=CREDITS["leave_one_out"]), reward=holes)
    batch = made.step(0).batches[0]
    assert batch.advantage[:3, 0].tolist() == pytest.approx([-2.0, 0.0, 2.0])
    assert batch.weight[:3].tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("credit", ["centre", "gdpo"])
def test_a_part_that_some_groups_lack_counts_where_it_is(credit):
    """A reward of one's own may name parts of its scores for some prompts alone; gdpo learns nothing without it."""
    seen = []

    def sometimes(groups):
        seen.extend(groups)
        return [Scores((1.0, 3.0), {"told": (2.0, 4.0)} if n else {}) for n, _ in enumerate(groups)]

    made, _ = source(Rollouts(completions_per_prompt=2, credit=CREDITS[credit]), reward=sometimes)
    step = made.step(0)
    assert step.metrics["reward/told"] == pytest.approx(3.0)
    advantage = step.batches[0].advantage.flatten().tolist()
    first = advantage[:2] if made.buffer.examples[0].tokens.group.prompt == seen[0].prompt else advantage[2:]
    assert first == ([-1.0, 1.0] if credit == "centre" else [0.0, 0.0])


def test_best_against_worst_drops_equal_texts():
    made, _ = source(Rollouts(completions_per_prompt=3, credit=SELECTIONS["best_vs_worst"]), needs=frozenset({Need.PAIRS}))
    batch = made.step(0).batches[0]
    assert batch.pairs.tolist() == [[0, 1], [2, 3]]
    assert batch.completion_mask.sum(-1).tolist() == [3, 1, 3, 1]

    class Same(Sampler):
        def one(self, prompt, i):
            return replace(super().one(prompt, i), content="same \n" if i else "same")

    made, _ = source(
        Rollouts(completions_per_prompt=3, credit=SELECTIONS["best_vs_worst"]), needs=frozenset({Need.PAIRS}), engine=Same()
    )
    assert made.step(0).batches == []


def test_mixed_temperatures_and_length_penalty():
    plan = Rollouts(
        completions_per_prompt=4,
        credit=SELECTIONS["best"],
        exploration=Exploration(temperatures=(1.0, 0.7)),
        shaping=LengthPenalty(per_character=10.0),
    )
    made, sampler = source(plan, needs=frozenset())
    batch = made.step(0).batches[0]
    assert [s.temperature for s in sampler.asked[0][1]] == [1.0, 0.7, 1.0, 0.7]
    assert batch.completions == 2
    best = made.buffer.examples[0].tokens.group
    assert best.completions[0].text.endswith("answer x"), "ten a character outweighs one a token"
    assert best.parts["unshaped"] == (1.0,)


def test_gae_per_token_sums_to_the_shaped_reward():
    """gamma = lambda = 1 and V = 0: before whitening, the first token's advantage is the whole shaped reward."""
    items = [Example(tokens=tokenise(g)) for g in Sampler().generate(PROMPTS[:2], 3, None)]
    fields = lambda i, v: tuple(torch.full((len(c.ids),), v) for c in i.tokens.completions)  # noqa: E731
    items = [
        replace(i, per_token={"old_logp": fields(i, -0.5), "ref_logp": fields(i, -1.0), "value": fields(i, 0.0)}) for i in items
    ]
    out = Gae(lam=1.0)(experience(items, [[1.0, 2.0, 3.0]] * 2, kl=0.2))
    returns = [row[0].item() for i in out for row in i.per_token["returns"]]
    assert returns == pytest.approx([1 - 0.1, 2 - 0.2, 3 - 0.3] * 2)
    everything = torch.cat([row for i in out for row in i.per_token["token_advantage"]])
    assert everything.mean().item() == pytest.approx(0, abs=1e-6)
    assert everything.var().item() == pytest.approx(1, abs=1e-5)


def test_several_updates_share_a_rollout_and_resume_inside_it():
    plan = Rollouts(completions_per_prompt=2, credit=CREDITS["centre"], schedule=Schedule(4, 2))
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
    made, _ = source(Rollouts(completions_per_prompt=2, credit=CREDITS["running_baseline"]))
    made.step(0)
    assert made.memory["baseline"] == pytest.approx(1.5)
    advantage = made.step(1).batches[0].advantage.flatten()
    assert advantage.tolist() == pytest.approx([-0.5, 0.5, -0.5, 0.5])


def test_adaptive_kl_moves_towards_its_target():
    reference = lambda items: rows(items, -9.0)  # noqa: E731
    plan = Rollouts(completions_per_prompt=2, credit=CREDITS["centre"], kl=KlPenalty(coefficient=0.1, target=1.0, horizon=100))
    made, _ = source(plan, reference=reference)
    made.step(0)
    assert made.memory["kl_coefficient"] == pytest.approx(0.1 * (1 + 0.2 * 4 / 100))


def test_prompts_come_round_in_epochs():
    made, sampler = source(Rollouts(completions_per_prompt=2, credit=CREDITS["centre"]))
    for i in range(3):
        made.step(i)
    seen = [p for prompts, _ in sampler.asked for p in prompts]
    assert sorted(seen) == sorted(p.content for p in PROMPTS)
    assert len({s.seed for _, s in sampler.asked}) == 3, "every rollout draws its own numbers"


def test_value_needs_a_reading():
    plan = Rollouts(completions_per_prompt=2, credit=CREDITS["gae"])
    made, _ = source(plan, needs=frozenset({Need.ADVANTAGE, Need.VALUE}))
    batch = made.step(0).batches[0]
    assert batch.value[batch.completion_mask].tolist() == [0.25] * int(batch.completion_mask.sum())
    assert Head.VALUE == "value"
    assert not math.isnan(batch.advantage.sum().item())


def test_the_best_alone_may_be_truncated_and_then_weighs_nothing():
    class Cut(Sampler):
        def one(self, prompt, i):
            return replace(super().one(prompt, i), finish=Finish.LENGTH if prompt.content == self.first else Finish.STOP)

        def generate(self, prompts, n, sampling, *, max_prompt=None):
            self.first = prompts[0].content
            return super().generate(prompts, n, sampling, max_prompt=max_prompt)

    plan = Rollouts(completions_per_prompt=3, credit=SELECTIONS["best"], truncation=Truncation(mask=True))
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
        items = [Example(tokens=tokenise(g)) for g in finished(Sampler().generate(PROMPTS[:1], 2, None))]
        fields = lambda i, v: tuple(torch.full((len(c.ids),), v) for c in i.tokens.completions)  # noqa: E731
        items = [replace(i, per_token={"old_logp": fields(i, -0.5), "value": fields(i, 0.25)}) for i in items]
        out = Gae(lam=1.0, **plan)(experience(items, [[1.0, 2.0]]))
        returns = [row.tolist() for row in out[0].per_token["returns"]]
        assert returns == [pytest.approx([1.0 + worth]), pytest.approx([2.0 + worth] * 2)]


def test_a_learned_value_is_taken_off_the_reward_to_go_and_nothing_is_whitened():
    items = [Example(tokens=tokenise(g)) for g in Sampler().generate(PROMPTS[:1], 2, None)]
    items = [
        replace(i, per_token={"old_logp": rows([i], -0.5)[0], "ref_logp": rows([i], -1.0)[0], "value": rows([i], 0.25)[0]})
        for i in items
    ]
    out = CREDITS["value"](experience(items, [[1.0, 2.0]], kl=0.2))
    advantage = [row.tolist() for row in out[0].per_token["token_advantage"]]
    assert advantage == [pytest.approx([0.9 - 0.25]), pytest.approx([1.8 - 0.25, 1.9 - 0.25])]


@pytest.mark.parametrize(("estimator", "each"), [("k1", 0.5), ("k2", 0.125), ("k3", math.exp(-0.5) - 1 + 0.5), ("exact", 0.25)])
def test_every_estimator_can_stand_in_the_reward(estimator, each):
    """D = 0.5 at every token; the exact one is what the reader says, 0.25. Answers have 1 and 2 tokens, rewards 1 and 2."""
    reference = lambda items: rows(items, -1.0)  # noqa: E731
    plan = Rollouts(completions_per_prompt=2, credit=CREDITS["none"], kl=KlPenalty(coefficient=0.2, estimator=estimator))
    made, _ = source(plan, reference=reference)
    advantage = made.step(0).batches[0].advantage.flatten()[:2]
    assert advantage.tolist() == pytest.approx([1 - 0.2 * each, 2 - 0.4 * each])
    assert "exact_kl" not in made.buffer.examples[0].per_token, "a buffer need not keep it"


@pytest.mark.parametrize("select", [SELECTIONS["best_vs_random"], rejection(5.0)])
def test_exploring_pairs_are_ordered_and_drawn_anew_for_every_rollout(select):
    made, _ = source(Rollouts(completions_per_prompt=5, credit=select), needs=frozenset({Need.PAIRS}))
    seen = set()
    for index in range(8):
        for batch in made.step(index).batches:
            lengths = batch.completion_mask.sum(-1)
            for chosen, rejected in batch.pairs.tolist():
                assert lengths[chosen] > lengths[rejected]
                seen.add((int(lengths[chosen]), int(lengths[rejected])))
    assert len(seen) > 2
    assert select.name == "rejection" or {c for c, _ in seen} == {5}


def test_what_follows_a_rollout_comes_before_its_first_update_and_not_again_after_a_resume():
    plan = Rollouts(completions_per_prompt=2, credit=CREDITS["centre"], schedule=Schedule(2))
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


def test_refill_asks_for_further_prompts_and_as_many_as_are_missing():
    """Three tries of two prompts meet each of the six once; the next rollout begins the next epoch. One missing asks for one."""
    flat = lambda groups: [Scores((1.0, 1.0)) for _ in groups]  # noqa: E731
    plan = Rollouts(completions_per_prompt=2, credit=CREDITS["standardise"], exploration=Exploration(refill=2))
    made, sampler = source(plan, reward=flat)
    collected(made, 0)
    assert [len(prompts) for prompts, _ in sampler.asked] == [2, 2, 2]
    assert sorted(p for prompts, _ in sampler.asked for p in prompts) == [p.content for p in PROMPTS]
    collected(made, 1)
    assert sorted(p for prompts, _ in sampler.asked[3:] for p in prompts) == [p.content for p in PROMPTS]
    first = sampler.asked[0][0][0]
    one = lambda groups: [Scores((1.0, 1.0) if g.prompt.content == first else (0.0, 1.0)) for g in groups]  # noqa: E731
    made, sampler = source(plan, reward=one)
    kept = [e.tokens.group.prompt.content for e in collected(made, 0)[0]]
    (both, _), (more, _) = sampler.asked
    assert len(more) == 1
    assert kept == [both[1], *more], "the flat group is gone, the other stays, a further prompt stands in"


def test_an_answer_near_the_limit_loses_reward():
    """Limit 3, buffer 2: answers of 1, 2 and 3 tokens lose 0, a half and one. The reward as it was is kept beside."""
    same = lambda groups: [Scores((5.0, 5.0, 5.0)) for _ in groups]  # noqa: E731
    plan = Rollouts(completions_per_prompt=3, credit=CREDITS["centre"], shaping=LengthPenalty(limit=3, buffer=2))
    made, _ = source(plan, reward=same)
    step = made.step(0)
    group = made.buffer.examples[0].tokens.group
    assert group.scores == (5.0, 4.5, 4.0)
    assert group.parts["unshaped"] == (5.0, 5.0, 5.0)
    assert step.batches[0].advantage[:3, 0].tolist() == pytest.approx([0.5, 0.0, -0.5])
    assert LengthPenalty(per_character=0.5)(group).scores == tuple(
        s - 0.5 * len(c.text) for s, c in zip(group.scores, group.completions, strict=True)
    )


def test_dapo_fines_the_last_fifth_of_the_limit_and_draws_three_times_more():
    plan = methods.build("dapo", {}, steps=6, max_tokens=20).rollouts
    assert plan.shaping == LengthPenalty(limit=20, buffer=4)
    assert plan.exploration.refill == 3


@pytest.mark.parametrize(
    ("exploration", "sampling", "temperature", "matches"),
    [
        ({}, {}, 1.0, True),
        ({}, {"temperature": 0.7}, 0.7, True),
        ({}, {"temperature": 0.7}, 1.0, False),
        ({}, {"top_p": 0.9}, 1.0, False),
        ({}, {"top_k": 5}, 1.0, False),
        ({"temperatures": (0.7, 0.7)}, {}, 0.7, True),
        ({"temperatures": (1.0, 0.7)}, {}, 1.0, False),
        ({"partner": "start"}, {}, 1.0, False),
    ],
)
def test_when_the_sampler_s_log_probs_are_the_trainer_s_own(exploration, sampling, temperature, matches):
    assert Exploration(**exploration).sampler_matches_trainer(Sampling(**sampling), temperature) is matches


@pytest.mark.parametrize(("sampling", "asked"), [({}, False), ({"top_k": 5}, True), ({"top_p": 0.9}, True)])
def test_the_trainer_is_asked_for_its_own_log_probs_where_the_sampler_cut_some_off(sampling, asked):
    made, _ = source(Rollouts(completions_per_prompt=2, credit=CREDITS["centre"]))
    made.sampler = GroupSampler(engine=Sampler(), sampling=Sampling(max_tokens=8, **sampling))
    assert made.step(0).metrics["entropy"] == pytest.approx(-0.25 if asked else 0.5)


def test_every_author_reads_prompts_as_long_as_training_does():
    own, partner = Sampler(), Sampler()
    sampler = GroupSampler(engine=own, sampling=Sampling(max_tokens=8), partner=partner, max_prompt=3)
    sampler(PROMPTS[:1], 4, Exploration(partner=INITIAL_POLICY), seed=0)
    sampler.greedy(PROMPTS[:1])
    replace(sampler, partner=None)(PROMPTS[:1], 4, Exploration(), seed=0)
    assert own.limits == [3, 3, 3]
    assert partner.limits == [3]


@pytest.mark.parametrize(("n", "own", "theirs"), [(4, 2, 2), (5, 3, 2)])
def test_the_partner_writes_the_second_half_and_the_policy_the_odd_one(n, own, theirs):
    class Signed(Sampler):
        def one(self, prompt, i):
            return replace(super().one(prompt, i), content=self.name)

    authors = [Signed(), Signed()]
    authors[0].name, authors[1].name = "own", "partner"
    sampler = GroupSampler(engine=authors[0], sampling=Sampling(max_tokens=8), partner=authors[1])
    (group,) = sampler(PROMPTS[:1], n, Exploration(partner=INITIAL_POLICY), seed=0)
    assert [c.content for c in group.completions] == ["own"] * own + ["partner"] * theirs


def test_a_group_s_spread_is_of_known_rewards_before_or_after_length_penalties():
    group = replace(Sampler().generate(PROMPTS[:1], 3, None)[0], scores=(1.0, math.nan, 4.0), parts={UNSHAPED: (2.0, 0.0, 2.5)})
    assert spread(group) == 3.0
    assert spread(group, unshaped=True) == 2.5
    assert spread(replace(group, scores=(1.0, math.nan, math.nan))) == 0.0
