"""Who scores: a reward model's folder, a policy's log-probs, or a reward by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from evenhand.cli.models import is_reward_model, model_path, open_policy, open_renderer, quiet
from evenhand.experiment.document import parse
from evenhand.types import Group, Head, Scores

MICROBATCH = 8192
Scorer = Callable[[Sequence[Group]], list[Scores]]


def scorer(name: str, max_prompt: int, max_completion: int, device: str) -> Scorer:
    """The reward that `name` means: a program by name or as a mapping, else the model in that folder."""
    from evenhand.rewards import KINDS, get

    if name.startswith("{"):
        return get(parse(name, "command line").data)
    if not Path(name).exists() and (name in KINDS or _meant(name, KINDS)):
        return get(name)  # which says what was meant
    path = model_path(name)
    if is_reward_model(path):
        from evenhand.models.load import load_reward_model
        from evenhand.rewards.model import ModelReward

        quiet()
        model = load_reward_model(path, device=device)
        return ModelReward(
            model,
            open_renderer(path),
            max_prompt=max_prompt,
            max_completion=max_completion,
            tokens_per_microbatch=MICROBATCH,
        )
    return log_probs(name, max_prompt, max_completion, device)


def _meant(name: str, kinds: Iterable[str]) -> bool:
    """True for a misspelt reward; it would be looked for on the Hub."""
    return "/" not in name and bool(difflib.get_close_matches(name, kinds, cutoff=0.7))


def log_probs(name: str, max_prompt: int, max_completion: int, device: str) -> Scorer:
    """log pi(answer | prompt) in nats, summed over the answer's tokens (its stop token too); `per_token` is the mean."""
    policy, renderer = open_policy(name, device)

    def reward(groups: Sequence[Group]) -> list[Scores]:
        from evenhand.train.items import Item
        from evenhand.train.scoring import read, total

        tokens = [renderer.tokenise(group, max_prompt=max_prompt, max_completion=max_completion) for group in groups]
        items = [Item(tokens=t) for t in tokens]
        rows = read(
            policy, items, frozenset({Head.LOGP}), tokens_per_microbatch=MICROBATCH, temperature=1.0, device=policy.device
        )
        scores = []
        for item, row in zip(items, rows[Head.LOGP], strict=True):
            masks = [c.mask for c in item.tokens.completions]
            sums = tuple(total(r, m) for r, m in zip(row, masks, strict=True))
            scores.append(Scores(sums, {"per_token": tuple(s / sum(m) for s, m in zip(sums, masks, strict=True))}))
        return scores

    return reward
