"""A step of every rollout method, off its policy, written down again from the papers: nothing here calls the code that it judges.

Loss and gradient are made of raw samples and plain transformers logits (see `hand`), and must be the loop's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evenhand.train.examples import Example, assemble
from evenhand.types import Completion, Group, Head, Prompt
from tests.battery.hand import (
    LIMIT,
    TEMPERATURE,
    Sample,
    Stepped,
    agrees,
    answers_of,
    distributions,
    logps,
    stepped,
)  # fmt: skip
from tests.golden.runs import Numbers

# ---- credit ---------------------------------------------------------------------------------------------------------------


def z_score(r: np.ndarray) -> np.ndarray:
    return (r - r.mean()) / (r.std(ddof=1) + 1e-4) if np.ptp(r) > 1e-6 else 0 * r


def others(r: np.ndarray) -> np.ndarray:
    return np.array([x - np.delete(r, i).mean() for i, x in enumerate(r)])


def ranks(r: np.ndarray) -> np.ndarray:
    return np.array([np.sign(x - np.delete(r, i)).mean() for i, x in enumerate(r)])


def credited(samples: list[Sample], rule: Callable, *, kl: float = 0.0, whole: bool = False, cut: bool = True) -> None:
    """Rewards less kl times the log-ratio to the reference, compared within groups (or over the whole rollout); `cut`: with those
    that the limit cut."""
    scored = [s for s in samples if s.reward == s.reward and (cut or not s.cut)]
    for group in [scored] if whole else [[s for s in scored if s.group == n] for n in {s.group for s in scored}]:
        shaped = np.array([s.reward - kl * float((s.old - s.ref).sum()) for s in group])
        for sample, value in zip(group, rule(shaped) if len(group) > 1 else [0.0], strict=True):
            sample.credit = float(value)


# ---- losses per token -----------------------------------------------------------------------------------------------------


def ppo_clip(low: float, high: float, cap: float = np.inf) -> Callable:
    def loss(logp: Tensor, old: Tensor, credit: Any) -> Tensor:
        ratio, credit = (logp - old).exp(), torch.as_tensor(credit, dtype=torch.float64)
        smaller = torch.minimum(ratio * credit, ratio.clamp(1 - low, 1 + high) * credit)
        return -torch.where(credit < 0, torch.maximum(smaller, cap * credit) if cap < np.inf else smaller, smaller)

    return loss


def whole_ratio(low: float, high: float) -> Callable:
    def loss(logp: Tensor, old: Tensor, credit: float) -> Tensor:
        ratio = ((logp - old).sum() / len(logp)).exp()
        return -torch.minimum(ratio * credit, ratio.clamp(1 - low, 1 + high) * credit).expand(len(logp))

    return loss


def capped_weight(low: float, high: float) -> Callable:
    return lambda logp, old, credit: -(logp - old).exp().clamp(1 - low, 1 + high).detach() * credit * logp


def score_function(logp: Tensor, old: Tensor, credit: float) -> Tensor:
    return -credit * logp


SHARE: dict[str, Callable[[int, int, int], float]] = {
    "tokens alike": lambda n, tokens, rows: 1 / tokens,
    "mean of means": lambda n, tokens, rows: 1 / (n * rows),
    "mean of sums": lambda n, tokens, rows: 1 / rows,
    "sums over the limit": lambda n, tokens, rows: 1 / (rows * LIMIT),
}
PENALTY: dict[str, Callable] = {
    "k2": lambda x, logp, old: 0.5 * (logp - x.ref).square(),
    "k3": lambda x, logp, old: (x.ref - logp).exp() - 1 - (x.ref - logp),
    "k3_ratio": lambda x, logp, old: (logp - old).exp() * ((x.ref - logp).exp() - 1 - (x.ref - logp)),
}


def total(
    done: Stepped, loss: Callable, share: str, *, kl: float = 0.0, penalty: str = "k3", entropy: float = 0.0,
    cap: float = 0.0, drop_cut: bool = False, on_policy: bool = False,
) -> Tensor:  # fmt: skip
    """The step's loss: every scored answer's tokens, with what is added beside the surrogate."""
    live = [s for s in done.taken() if s.reward == s.reward and not (drop_cut and s.cut)]
    tokens, out = sum(len(s.ids) for s in live), torch.zeros((), dtype=torch.float64)
    for s in live:
        whole = distributions(done.model, s.prompt, s.ids, done.temperature)
        logp = whole[range(len(s.ids)), list(s.ids)]
        old = logp.detach() if on_policy else s.old
        value = loss(logp, old, s.credit) * ((old - s.behaviour).exp().clamp(max=cap) if cap else 1.0)
        if kl and penalty == "exact":
            ref = distributions(done.frozen, s.prompt, s.ids, done.temperature).detach()
            value = value + kl * (whole.exp() * (whole - ref)).sum(-1)
        elif kl:
            value = value + kl * PENALTY[penalty](s, logp, old)
        value = value + entropy * (whole.exp() * whole).sum(-1)
        out = out + SHARE[share](len(s.ids), tokens, len(live)) * value.sum()
    return out


CASES: dict[str, tuple[str, dict, dict, Callable, str, Callable, dict]] = {
    "grpo, everything at once": (
        "grpo", {"updates": 4, "epochs": 2, "mask_truncated": True, "kl": 0.1, "entropy": 0.02, "dual_clip": 1.2}, {},
        ppo_clip(0.2, 0.2, 1.2), "mean of means", z_score, {"kl": 0.1, "entropy": 0.02, "drop_cut": True},
    ),
    "grpo, k2, top-p": (
        "grpo", {"updates": 2, "kl": 0.1, "kl_estimator": "k2", "importance": 1.05}, {"top_p": 0.8},
        ppo_clip(0.2, 0.2), "mean of means", z_score, {"kl": 0.1, "penalty": "k2", "cap": 1.05},
    ),
    "grpo, k3 under the ratio": (
        "grpo", {"updates": 2, "kl": 0.3, "kl_estimator": "k3_ratio"}, {},
        ppo_clip(0.2, 0.2), "mean of means", z_score, {"kl": 0.3, "penalty": "k3_ratio"},
    ),
    "grpo, exact": (
        "grpo", {"updates": 2, "kl": 0.1, "kl_estimator": "exact"}, {},
        ppo_clip(0.2, 0.2), "mean of means", z_score, {"kl": 0.1, "penalty": "exact"},
    ),
    "dr_grpo": (
        "dr_grpo", {"updates": 2, "mask_truncated": True}, {},
        ppo_clip(0.2, 0.2), "sums over the limit", lambda r: r - r.mean(), {"drop_cut": True},
    ),
    "dr_grpo, cut answers left out": (
        "dr_grpo", {"updates": 2, "mask_truncated": True, "truncated_in_baseline": False}, {},
        ppo_clip(0.2, 0.2), "sums over the limit", lambda r: r - r.mean(), {"drop_cut": True},
    ),
    "dapo, top-p": (
        "dapo", {"updates": 2, "importance": 1.1, "overlong": 0.0, "refill": 0}, {"top_p": 0.9},
        ppo_clip(0.2, 0.28), "tokens alike", z_score, {"cap": 1.1},
    ),
    "gspo": (
        "gspo", {"updates": 2, "low": 0.01, "high": 0.02, "importance": 1.1}, {"top_p": 0.9},
        whole_ratio(0.01, 0.02), "mean of means", z_score, {"cap": 1.1},
    ),
    "cispo": ("cispo", {"updates": 2, "low": 0.1, "high": 0.1}, {}, capped_weight(0.1, 0.1), "tokens alike", z_score, {}),
    "rloo": ("rloo", {"kl": 0.3}, {"update": 0}, score_function, "mean of sums", others, {"on_policy": True}),
    "rloo, top-p": (
        "rloo", {"kl": 0.3, "importance": 1.5, "entropy": 0.02}, {"update": 0, "top_p": 0.8},
        score_function, "mean of sums", others, {"on_policy": True, "cap": 1.5, "entropy": 0.02},
    ),
    "rank_advantage": ("rank_advantage", {"kl": 0.3}, {"update": 0}, score_function, "mean of sums", ranks, {"on_policy": True}),
    "grpo, rank, KL in the reward": (
        "grpo", {"advantage": "rank", "kl": 0.3, "kl_in": "reward", "kl_estimator": "k1", "updates": 2}, {},
        ppo_clip(0.2, 0.2), "mean of means", ranks, {},
    ),
    "reinforce": ("reinforce", {"kl": 0.3}, {"update": 0}, score_function, "mean of sums", others, {"on_policy": True}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_step_is_what_its_formula_says(case):
    name, parameters, how, loss, share, rule, added = CASES[case]
    done = stepped(name, {"completions_per_prompt": 4, **parameters}, **how)
    assert any(s.reward != s.reward for s in done.samples)
    shared = parameters.get("truncated_in_baseline", True)
    credited(done.samples, rule, kl=done.method.rollouts.kl.coefficient and 0.3, whole=name == "reinforce", cut=shared)
    agrees(done, total(done, loss, share, **added))


def test_rloo_over_two_updates_clips_the_ratio_of_the_answer():
    done = stepped("rloo", {"completions_per_prompt": 4, "kl": 0.3, "updates": 2, "clip": 0.1})
    credited(done.samples, others, kl=0.3)
    live = [s for s in done.taken() if s.reward == s.reward]
    ratios = [(logps(done.model, s.prompt, s.ids, TEMPERATURE) - s.old).sum().exp() for s in live]
    agrees(
        done,
        -sum(torch.minimum(r * s.credit, r.clamp(0.9, 1.1) * s.credit) for r, s in zip(ratios, live, strict=True)) / len(live),
    )


def test_topr_tapers_by_the_probability_at_which_it_was_sampled():
    done = stepped("topr_online", {"completions_per_prompt": 4, "updates": 2, "baseline": 0.2})
    live, out = [s for s in done.taken() if s.reward == s.reward], torch.zeros(())
    for s in live:
        whole, credit = logps(done.model, s.prompt, s.ids, TEMPERATURE).sum(), s.reward - 0.2
        taper = 1.0 if credit >= 0 else min(1.0, float((whole.detach() - s.behaviour.sum()).exp()))
        out = out - taper * credit * whole / len(live)
    agrees(done, out)


@pytest.mark.parametrize(
    ("name", "parameters", "update"),
    [("online_dpo", {}, 0), ("batched_online_dpo", {}, 1), ("iterative_dpo", {"likelihood": 0.7, "length_penalty": 0.0317}, 1)],
)
def test_pairs_are_best_against_worst_under_dpo(name, parameters, update):
    """The reference is the start, or for the batched form the policy that sampled. Logits are divided by the sampler's
    temperature, but for iterative DPO, whose samples have two."""
    done = stepped(name, {"completions_per_prompt": 4, "beta": 0.3, **parameters}, update=update)
    reference = done.before if done.method.reference == "generator" else done.frozen
    assert done.temperature == (1.0 if name == "iterative_dpo" else TEMPERATURE)

    losses, chosen = [], []
    scores = group_scores(done, parameters.get("length_penalty", 0.0))
    for batch in done.batches:
        answers = answers_of(batch)
        for i, j in batch.pairs.tolist():
            (prompt, better), (_, worse) = answers[i], answers[j]
            known = scores[prompt]
            best, worst = max(known.values()), min(known.values())
            assert [known[better], known[worse]] == pytest.approx([best, worst])
            assert best > worst
            own = [logps(done.model, prompt, y, done.temperature) for y in (better, worse)]
            ref = [logps(reference, prompt, y, done.temperature).detach().sum() for y in (better, worse)]
            losses.append(torch.nn.functional.softplus(-0.3 * ((own[0].sum() - ref[0]) - (own[1].sum() - ref[1]))))
            chosen.append(own[0])
    if name == "online_dpo":  # all groups are in its one step
        assert len(losses) == sum(len(set(known.values())) > 1 for known in scores.values())
    likelihood = -torch.cat(chosen).mean()
    agrees(done, torch.stack(losses).mean() + parameters.get("likelihood", 0.0) * likelihood)


def group_scores(done: Stepped, price: float = 0.0) -> dict[tuple[int, ...], dict[tuple[int, ...], float]]:
    """The scored answers to each prompt, less `price` per character of their text."""
    out: dict = {}
    for s in done.samples:
        if s.reward == s.reward:
            out.setdefault(s.prompt, {})[s.ids] = s.reward - price * len(" ".join(str(i) for i in s.ids if i))
    return out


def test_raft_imitates_the_best_of_each_group_at_temperature_one_unless_it_was_cut():
    done = stepped("raft", {"completions_per_prompt": 4, "mask_truncated": True}, update=0)
    assert done.temperature == 1.0
    scores, kept = group_scores(done), [answer for batch in done.batches for answer in answers_of(batch)]
    assert sorted(p for p, _ in kept) == sorted(scores), "one answer per prompt that has a scored one"
    assert all(scores[p][y] == max(scores[p].values()) for p, y in kept)
    cut = {(s.prompt, s.ids) for s in done.samples if s.cut}
    assert 0 < len(cut.intersection(kept)) < len(kept)
    agrees(done, -torch.cat([logps(done.model, p, y, 1.0) for p, y in kept if (p, y) not in cut]).mean())


@pytest.mark.parametrize(
    ("parameters", "how"),
    [
        ({"updates": 2, "epochs": 1, "clip": 0.1, "value_clip": 0.05, "value": 0.3, "gamma": 0.95, "lam": 0.8, "dual_clip": 1.3,
          "bootstrap_truncated": True}, {}),
        ({"updates": 4, "epochs": 2, "critic": "separate", "importance": 1.05}, {"update": 3, "top_p": 0.8}),
    ],
)  # fmt: skip
def test_ppo_by_its_definitions(parameters, how):
    """Generalised advantages as a sum over differences, whitened over the rollout; the values alone are read from the model."""
    p = {
        "gamma": 1.0,
        "lam": 0.95,
        "clip": 0.2,
        "value": 0.1,
        "value_clip": 0.2,
        "dual_clip": np.inf,
        "importance": 0.0,
    } | parameters
    done = stepped("ppo", {"completions_per_prompt": 4, "kl": 0.2, **parameters}, **how)

    def values(model, s: Sample) -> Tensor:
        answer = Completion(content="", tokens=s.ids)
        item = Example(
            tokens=Numbers().tokenise(Group(prompt=Prompt(content=" ".join(map(str, s.prompt))), completions=(answer,)))
        )
        return model(assemble([item]), frozenset({Head.VALUE}), temperature=TEMPERATURE).value[0].double()

    scored, aims = [s for s in done.samples if s.reward == s.reward], {}
    for s in scored:
        value = values(done.before, s).detach()
        reward = -0.2 * (s.old - s.ref)
        reward[-1] += s.reward
        after = torch.cat([value[1:], value[-1:] if s.cut and p.get("bootstrap_truncated") else value.new_zeros(1)])
        delta = reward + p["gamma"] * after - value
        decay = p["gamma"] * p["lam"]
        s.credit = torch.stack([sum(decay**k * d for k, d in enumerate(delta[t:])) for t in range(len(delta))])
        aims[id(s)] = (value, s.credit + value)
    everything = torch.cat([s.credit for s in scored])
    for s in scored:
        s.credit = (s.credit - everything.mean()) / (everything.var() + 1e-8).sqrt()
    out = total(done, ppo_clip(p["clip"], p["clip"], p["dual_clip"]), "tokens alike", cap=p["importance"])
    live = [s for s in done.taken() if s.reward == s.reward]
    for s in live:
        value, (start, aim) = values(done.model, s), aims[id(s)]
        near = start + (value - start).clamp(-p["value_clip"], p["value_clip"])
        error = 0.5 * torch.maximum((value - aim).square(), (near - aim).square())
        out = out + p["value"] * error.sum() / sum(len(x.ids) for x in live)
    agrees(done, out)
