"""Whether the figures of several runs are on one scale: the same judge, held-out prompts, baseline and its answers, and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evenhand.results.record_judge import JudgeSummary
from evenhand.results.side_by_side.opened import OpenedRun
from evenhand.results.side_by_side.settings import in_words
from evenhand.store.fingerprint import digest

JUDGE, PROMPTS, BASELINE, SEEDS, SAMPLING = "judge", "held-out prompts", "baseline", "seeds", "how answers are drawn"
_TELLS = {
    JUDGE: "another judge",
    PROMPTS: "other held-out prompts",
    BASELINE: "another baseline, or one that answers otherwise",
}
_UNKNOWN = {
    JUDGE: "it is not known whether one judge judged both",
    PROMPTS: "it is not known whether the prompts are the same",
    BASELINE: "the baseline's answers cannot be set beside each other: no seed in common, or not recorded",
}


@dataclass(frozen=True, slots=True)
class Aspect:
    """A part of the yardstick: what it is in every run, in words, and whether it is the first run's. None: not known."""

    name: str
    values: tuple[str, ...]
    same: tuple[bool | None, ...]

    @property
    def decides(self) -> bool:
        """Whether figures are on other scales where it is not the same."""
        return self.name in _TELLS


@dataclass(frozen=True, slots=True)
class Yardstick:
    """`reasons[label]`: why the win rates of that run are not on the first run's scale; empty where they are."""

    aspects: tuple[Aspect, ...]
    reasons: Mapping[str, tuple[str, ...]]

    def remarks(self, label: str, labels: Sequence[str]) -> tuple[str, ...]:
        """What else differs, which leaves the scale as it is."""
        place = list(labels).index(label)
        found = {a.name: a.same[place] for a in self.aspects}
        said = {SEEDS: "other seeds", SAMPLING: "answers are drawn otherwise"}
        return tuple(text for name, text in said.items() if found[name] is False)


def yardstick(runs: Sequence[OpenedRun]) -> Yardstick:
    """Every aspect against the first run's. What a run did not record is not known, and counts as no ground to compare on."""
    seeds = [set(run.results.seeds) for run in runs]
    common = tuple(sorted(set.intersection(*seeds)))
    aspects = (
        _aspect(JUDGE, [_judge_words(run) for run in runs], [judge_identity(run) for run in runs]),
        _aspect(PROMPTS, [_prompt_words(run) for run in runs], [prompt_identity(run) for run in runs]),
        _aspect(BASELINE, [run.results.baseline or "none" for run in runs], [baseline_identity(run, common) for run in runs]),
        _aspect(SEEDS, [", ".join(map(str, run.results.seeds)) for run in runs], [list(run.results.seeds) for run in runs]),
        _aspect(SAMPLING, [_sampling_words(run) for run in runs], [_sampling(run) for run in runs]),
    )
    return Yardstick(aspects, {run.label: _reasons(aspects, place) for place, run in enumerate(runs)})


def _aspect(name: str, words: Sequence[str], identities: Sequence[Any]) -> Aspect:
    first = identities[0]
    same = tuple(None if first is None or one is None else one == first for one in identities)
    return Aspect(name, tuple(words), (True, *same[1:]))


def _reasons(aspects: Sequence[Aspect], place: int) -> tuple[str, ...]:
    judged = [(a.name, a.same[place]) for a in aspects if a.name in _TELLS]
    return tuple((_UNKNOWN if same is None else _TELLS)[name] for name, same in judged if not same)


def judge_identity(run: OpenedRun) -> str | None:
    """All that decides a verdict: the judge's settings, the rewards and reward models that it names, its template, user code."""
    config, judge = run.effective, run.results.judge
    if "judge" not in config:
        return None
    settings = {k: v for k, v in (config["judge"] or {}).items() if k != "self_test"}
    named = _named(settings, config)
    models = {
        name: key for name, key in run.keys.items()
        if name.split("/")[0] == "reward_models" and name.split("/")[1] in named and not name.endswith("/evaluation")
    }  # fmt: skip
    read = judge or JudgeSummary()
    data = config.get("data") or {}
    return digest({
        "settings": settings, "rewards": {n: (config.get("rewards") or {}).get(n) for n in sorted(named)}, "models": models,
        "template": read.template_sha, "revision": read.revision, "world": [data.get("world"), data.get("options")],
        "plugins": [[p.name, p.digest] for p in run.results.plugins],
    })  # fmt: skip


def _named(value: Any, config: Mapping[str, Any]) -> set[str]:
    """Rewards and reward models of the experiment that a value names, and those that they name."""
    known = {**(config.get("reward_models") or {}), **(config.get("rewards") or {})}
    found: set[str] = set()
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, Mapping):
            left += part.values()
        elif isinstance(part, list | tuple):
            left += part
        elif isinstance(part, str) and part in known and part not in found:
            found.add(part)
            left.append((config.get("rewards") or {}).get(part))
    return found


def prompt_identity(run: OpenedRun) -> str | None:
    """The held-out prompts themselves, in their order, as any arm's answers hold them."""
    for arm in run.results.arms:
        for seed in run.results.seeds:
            if groups := run.answers(arm, seed):
                return digest([[g.prompt.id, g.prompt.text] for g in groups])
    return None


def baseline_identity(run: OpenedRun, seeds: Sequence[int]) -> list[Any] | None:
    """The baseline's name and what it answered under the given seeds."""
    name = run.results.baseline
    if name is None or not seeds:
        return None
    answers = [[g.completions[0].text for g in run.answers(name, seed)] for seed in seeds]
    if not all(answers):
        keys = [run.keys.get(f"generations/{name}/seed-{seed}") for seed in seeds]
        return [name, keys] if all(keys) else None
    return [name, digest(answers)]


def _sampling(run: OpenedRun) -> dict[str, Any] | None:
    """What decides how an answer is drawn from a model."""
    if not run.effective:
        return None
    asked = run.effective.get("evaluation") or {}
    return {
        "sampling": asked.get("sampling"), "lengths": run.effective.get("lengths"),
        "environment": asked.get("environment") or run.effective.get("environment"),
    }  # fmt: skip


def _sampling_words(run: OpenedRun) -> str:
    found = _sampling(run)
    if found is None:
        return "not recorded"
    drawn = in_words(found["sampling"] or {})
    longest = (found["lengths"] or {}).get("completion")
    return drawn + (f"; at most {longest} tokens" if longest is not None else "")


def _judge_words(run: OpenedRun) -> str:
    judge = run.results.judge
    name = (judge.name if judge is not None else None) or in_words(run.effective.get("judge", "not recorded"))
    return f"{name} ({judge.kind})" if judge is not None and judge.kind and judge.kind != name else name


def _prompt_words(run: OpenedRun) -> str:
    return str(run.results.n_prompts) if run.results.n_prompts is not None else "not recorded"
