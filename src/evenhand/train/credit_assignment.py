"""From a scored rollout to what an objective reads: pure functions on items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from evenhand.core import credit, kl, kl_control
from evenhand.errors import UserError
from evenhand.train.examples import Item, with_pairs
from evenhand.train.logprobs import total
from evenhand.types import Finish, Group, Scores


class LengthPenalties(Protocol):
    """The part of `Rollouts` that `shaped` reads."""

    length_penalty: float
    overlong_limit: int
    overlong_buffer: int


def shaped(group: Group, penalties: LengthPenalties) -> Group:
    """The group with its length penalties taken off the scores; the unshaped reward stays in `parts`."""
    if not (penalties.length_penalty or penalties.overlong_buffer):
        return group
    fine = torch.tensor([penalties.length_penalty * len(c.text) for c in group.completions])
    if penalties.overlong_buffer:
        length = torch.tensor([float(len(c.tokens or ())) for c in group.completions])
        fine = fine - kl_control.overlong_penalty(length, limit=penalties.overlong_limit, buffer=penalties.overlong_buffer)
    scores = tuple(s - f for s, f in zip(group.scores, fine.tolist(), strict=True))
    return replace(group, scores=scores, parts={**group.parts, "unshaped": group.scores})


def weighted(item: Item, *, mask_truncated: bool) -> Item:
    """Weight 0 for a completion that could not be scored, and for a truncated one if asked; nothing changes if all count."""
    scores = item.tokens.group.scores
    counts = [score == score and not (mask_truncated and cut) for score, cut in zip(scores, truncated(item), strict=True)]
    return replace(item, per_completion={**item.per_completion, "weight": tuple(map(float, counts))})


def truncated(item: Item) -> list[bool]:
    """Which completions the limit cut."""
    return [c.finish is Finish.LENGTH for c in item.tokens.group.completions]


def spread(group: Group, *, unshaped: bool = False) -> float:
    """Range of a group's known scores, or of the rewards before length penalties; 0 when fewer than two are known."""
    scores = group.parts.get("unshaped", group.scores) if unshaped else group.scores
    known = [s for s in scores if s == s]
    return max(known) - min(known) if len(known) > 1 else 0.0


KL_ESTIMATORS = {"k1": kl.k1, "k2": kl.k2, "k3": kl.k3}
"""Of log-probs; `exact` was read from the policy, as the field `exact_kl`."""


def token_kl(item: Item, estimator: str = "k1") -> tuple[Tensor, ...]:
    """An estimate of the KL to the reference at every token of each completion, nats."""
    if estimator == "exact":
        return item.per_token["exact_kl"]
    pairs = zip(item.per_token["old_logp"], item.per_token["ref_logp"], strict=True)
    return tuple(KL_ESTIMATORS[estimator](old, ref) for old, ref in pairs)


def sequence_kl(item: Item, estimator: str = "k1") -> tuple[float, ...]:
    """`token_kl` of each completion summed over counted tokens: nats of the whole answer."""
    rows = zip(token_kl(item, estimator), item.tokens.completions, strict=True)
    return tuple(total(row, c.mask) for row, c in rows)


def pair_item(item: Item, best: int, worst: int) -> Item | None:
    """The item with two completions, best first, as one pair; None when their texts are the same but for white space."""
    pair = item.only([best, worst])
    chosen, rejected = pair.tokens.group.completions
    return None if chosen.text.strip() == rejected.text.strip() else with_pairs(pair)


class TokenCredit(Protocol):
    """The part of `Rollouts` that `token_credit` reads."""

    credit: str
    kl_estimator: str
    gamma: float
    lam: float
    bootstrap_truncated: bool


def token_credit(items: Sequence[Item], reward: Tensor, plan: TokenCredit, *, beta: float) -> list[Item]:
    """An advantage per token, `beta` times the KL per token in the reward; adds `returns` and `token_advantage`.

    `gae`: generalised advantages, whitened over the whole rollout (PPO). `value`: the reward-to-go less the value of the state,
    as it is (REINFORCE with a learned baseline). With `bootstrap_truncated` an answer cut by the length limit goes on for the
    value before its last token instead of ending there.
    """
    scored = ~reward.isnan()
    completions = [c for i in items for c in i.tokens.completions]
    masks = [torch.tensor(c.mask) & known for c, known in zip(completions, scored, strict=True)]  # unscored: no experience
    mask = pad_sequence(masks, batch_first=True)
    old, value = _padded(items, "old_logp"), _padded(items, "value")
    estimate = pad_sequence([row for i in items for row in token_kl(i, plan.kl_estimator)], batch_first=True) if beta else None
    rewards = kl_control.token_rewards(reward.nan_to_num(0.0), old, old, mask, beta=beta, estimate=estimate)
    cut = torch.tensor([end for i in items for end in truncated(i)]) if plan.bootstrap_truncated else None
    gamma, lam = (plan.gamma, plan.lam) if plan.credit == "gae" else (1.0, 1.0)
    advantage, returns = credit.gae(rewards, value, mask, gamma=gamma, lam=lam, bootstrap=cut)
    advantage = credit.whiten(advantage, mask) if plan.credit == "gae" else advantage
    out, at = [], 0
    for item in items:
        rows = range(at, at + len(item.tokens.completions))
        at = rows.stop
        fields = {
            "returns": tuple(returns[n, : len(masks[n])].clone() for n in rows),
            "token_advantage": tuple(advantage[n, : len(masks[n])].clone() for n in rows),
        }
        out.append(replace(item, per_token={**item.per_token, **fields}))
    return out


def _padded(items: Sequence[Item], name: str) -> Tensor:
    return pad_sequence([row for i in items for row in i.per_token[name]], batch_first=True)


def summary(groups: Sequence[Group], items: Sequence[Item]) -> dict[str, float]:
    """Reward, length, truncation, entropy and KL of a rollout, as plain means over completions."""
    completions = [c for g in groups for c in g.completions]
    scores = [s for g in groups for s in g.scores if s == s]
    tokens = sum(len(c.tokens or ()) for c in completions)
    out = {
        "reward": sum(scores) / max(1, len(scores)),
        "length": tokens / len(completions),
        "truncated": sum(c.finish is Finish.LENGTH for c in completions) / len(completions),
        "entropy": -sum(float(r.sum()) for i in items for r in i.per_token["old_logp"]) / max(1, tokens),
        "flat": sum(spread(g) <= credit.FLAT for g in groups) / len(groups),
    }
    if "ref_logp" in items[0].per_token:
        out["kl"] = sum(sum(sequence_kl(i)) for i in items) / len(completions)
    for name in groups[0].parts:
        values = [v for g in groups for v in g.parts[name] if v == v]
        out[f"reward/{name}"] = sum(values) / max(1, len(values))
    return out


def watched(groups: Sequence[Group]) -> dict[str, float]:
    """For the monitor alone: shares of the completions that repeat an earlier one of their group, and that have no score."""
    count = sum(len(g.completions) for g in groups)
    different = sum(len({c.tokens or c.text for c in g.completions}) for g in groups)
    unscored = sum(s != s for g in groups for s in g.scores)
    return {"watched/duplicates": 1 - different / count, "watched/unscored": unscored / count}


def checked(groups: Sequence[Group], scores: Sequence[Scores]) -> Sequence[Scores]:
    """The scores, none of them infinite. NaN is an answer that could not be scored, and counts nowhere."""
    for group, found in zip(groups, scores, strict=True):
        for completion, value in zip(group.completions, found.values, strict=True):
            if math.isinf(value):
                raise UserError(
                    f"the reward is {value}", where=f"prompt {group.prompt.id}, answer {completion.text[:60]!r}",
                    why="one infinite reward makes every advantage of its group, and so the weights, not a number",
                    fix="return a large finite number, or None (not scored) for an answer that the reward cannot judge",
                )  # fmt: skip
    return scores
