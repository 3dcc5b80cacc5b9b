"""Who scores: a reward model's folder, a policy's log-probs, or a reward by name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from evenhand.cli.files import parsed, refuse_unfinished
from evenhand.cli.models import is_model, is_reward_model, model_path, nothing_asked, open_policy, quiet, sample
from evenhand.cli.terminal import Waiting
from evenhand.configfile.text_file import json_object
from evenhand.registry import PYTHON
from evenhand.types import Group, Scores

MICROBATCH = 8192
SCORED_BY = "scored by "
"""Begins the name of the part that holds a scorer's numbers."""
Scorer = Callable[[Sequence[Group]], list[Scores]]


def scorer(name: str, device: str, *, max_prompt: int | None = None, max_completion: int | None = None) -> Scorer:
    """The reward that `name` means: a program by name or as a mapping, else the model in that folder.

    Without limits a text may be as long as the model's context; see `data.window`.
    """
    from evenhand.rewards import REWARDS, get

    if name.startswith("{"):
        return get(parsed(name, "command line"))
    if PYTHON.fullmatch(name) or (not Path(name).exists() and (name in REWARDS or _meant(name, REWARDS))):
        return get(name)  # which says what was meant
    path = model_path(name)
    if is_reward_model(path):
        from evenhand.models.artifacts import NORMALISATION_FILE
        from evenhand.models.load import load_reward_model
        from evenhand.rewards.external import external
        from evenhand.rewards.model import ModelReward, Normalisation
        from evenhand.rewards.served import SEVERAL, served
        from evenhand.stages.common import load_served, renderer_of

        quiet()
        with Waiting("opening the model"):
            how, renderer = left_by_training(Path(path)), renderer_of(path, None)
            several = how["kind"] in SEVERAL
            model = load_served(Path(path), how["kind"], device=device) if several else load_reward_model(path, device=device)
        if not several and not (Path(path) / NORMALISATION_FILE).exists():  # another tool's: it reads whole texts
            return external(model, renderer, tokens_per_microbatch=MICROBATCH, normalisation=Normalisation())
        reward = ModelReward(model, renderer, max_prompt, max_completion, MICROBATCH)
        return served(how, reward) if several else reward
    return log_probs(name, device, max_prompt, max_completion)


def left_by_training(model: Path) -> Mapping[str, Any]:
    """How a reward model that was trained here scores, as its training left it beside the folder of its weights."""
    from evenhand.stages.common import REWARD

    return {"kind": "score", **json_object(model.parent / REWARD)}


def answers_by_source(target: Path, prompts: Path | None, device: str) -> Mapping[str, list[Group]]:
    """What is to be scored: a run's answers by arm and seed, a model's answers to `prompts`, or a file's (under the name "")."""
    from evenhand.data.load import load
    from evenhand.evaluation.answers import known_answers
    from evenhand.results.finished_run import is_run, open_run

    refuse_unfinished(target)
    if is_run(target):
        return {f"{arm}-seed-{s}": g for arm, seeds in open_run(target).answers.items() for s, g in seeds.items()}
    if is_model(target):
        if prompts is None:
            raise nothing_asked(target)
        return {"": sample(str(target), prompts, device=device)}
    if (target.is_file() or target.is_dir()) and (found := known_answers(target)) is not None:
        return {"": found[1]}
    data = load(str(target), where=str(target))
    print(data.description)
    return {"": data.groups}


def in_file(given: Sequence[Group], scored: Sequence[Scores], name: str) -> list[Group]:
    """Groups as `score --out` writes them. Labels stay where they are and the scores stand beside them, in the part of `name`;
    groups without labels get the scores as theirs too."""
    keep = _has_scores(given)
    return [
        replace(g, scores=g.scores if keep else s.values, parts={**g.parts, **s.parts, f"{SCORED_BY}{name}": s.values})
        for g, s in zip(given, scored, strict=True)
    ]


def where_kept(given: Sequence[Group], name: str) -> str:
    """Where the scores are in that file."""
    if _has_scores(given):
        return f"its own scores as they were, these beside them (parts: '{SCORED_BY}{name}')"
    return "the scores as its answers' own"


def author(given: Sequence[Group]) -> str | None:
    """Whose scores the groups have, where `score --out` wrote them; None for labels."""
    names = {p for g in given for p in g.parts if p.startswith(SCORED_BY)}
    own = [n for n in names if all(map(_same, (g.parts.get(n, ()) for g in given), (g.scores for g in given)))]
    return min(own).removeprefix(SCORED_BY) if own else None


def _same(part: Sequence[float], scores: Sequence[float]) -> bool:
    return len(part) == len(scores) and all(a == b or (a != a and b != b) for a, b in zip(part, scores, strict=True))


def _has_scores(given: Sequence[Group]) -> bool:
    return any(score == score for g in given for score in g.scores)


def _meant(name: str, kinds: Iterable[str]) -> bool:
    """True for a misspelt reward; it would be looked for on the Hub."""
    return "/" not in name and bool(difflib.get_close_matches(name, kinds, cutoff=0.7))


def log_probs(name: str, device: str, max_prompt: int | None, max_completion: int | None) -> Scorer:
    """log pi(answer | prompt) in nats; see `evaluation.logprobs`."""
    from evenhand.evaluation.logprobs import log_probs as of_policy

    policy, renderer = open_policy(name, device)
    return of_policy(policy, renderer, max_prompt=max_prompt, max_completion=max_completion, tokens_per_microbatch=MICROBATCH)
