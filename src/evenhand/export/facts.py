"""What a card says of a model, from results.json, experiment.json and the ledgers, and nothing beyond them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evenhand.export.markdown import Markdown, code, escaped
from evenhand.export.subject import Subject
from evenhand.report.budget import COUNTS
from evenhand.report.formatting import MISSING, amount, duration, fixed, interval, is_number, percent, points, points_interval
from evenhand.report.run_data import RunData
from evenhand.report.scorers import PROBES, faults, judge_facts, judge_warnings, pair_measures
from evenhand.report.summary import ArmRow, Summary
from evenhand.report.text import corrected, excluded, power, seeds_agree, unscored
from evenhand.report.training import trained_badly
from evenhand.results.record import ArmResult, ArmVerdict, Results
from evenhand.results.record_parts import FrontierPoint, RewardModelSummary


def finding(summary: Summary, arm: ArmRow, seed: int | None) -> Markdown:
    """The verdict on an arm in one paragraph of Markdown; no claim without a verdict on which the seeds agree."""
    against = escaped(summary.reference)
    if arm.is_baseline:
        return Markdown(f"**The baseline.** The run's other arms were compared with {against}; it has no win rate of its own.")
    if arm.win_rate is None:
        return Markdown("**Not judged.** The run holds no verdict on this model.")
    joint = f", {interval(arm.ci95_simultaneous)} for all arms together" if arm.ci95_simultaneous else ""
    rate = (
        f"win rate {percent(arm.win_rate)} against {against} (95% interval {interval(arm.ci95)}{joint}; ties count half, 50% is "
        f"no difference), over {_counted(summary, arm)}."
    )
    if arm.verdict in (ArmVerdict.BETTER, ArmVerdict.WORSE) and seeds_agree(arm):
        head = f"**Judged {arm.verdict.value} than {against}**: {rate}"
    elif arm.verdict is ArmVerdict.INCONCLUSIVE:
        head = f"**Inconclusive**: it cannot be told apart from {against}. {rate[0].upper()}{rate[1:]} {power(summary)}"
    else:
        head = f"**No claim**: the interval excludes 50%, but the seeds do not agree. {rate[0].upper()}{rate[1:]}"
    return Markdown(" ".join([head.strip(), *_of_this_seed(summary, arm, seed)]))


def _counted(summary: Summary, arm: ArmRow) -> str:
    seeds = sum(value is not None for value in arm.per_seed)
    return f"{seeds} training seed{'s' * (seeds != 1)} and {summary.results.n_prompts or 'an unknown number of'} held-out prompts"


def _of_this_seed(summary: Summary, arm: ArmRow, seed: int | None) -> list[str]:
    """One checkpoint is not the method: its own number stands beside the others'."""
    if seed not in summary.results.seeds or len(arm.per_seed) != len(summary.results.seeds):
        return []
    own = arm.per_seed[summary.results.seeds.index(seed)]
    if own is None:
        return [f"This model is seed {seed}, which has no verdict of its own."]
    if len(summary.results.seeds) == 1:
        return [f"This model is that one seed ({seed}): the interval covers other prompts, not other training runs."]
    return [f"This model is seed {seed}, whose own win rate is {percent(own)}; the interval is about the method, not this seed."]


def verdict_table(summary: Summary, name: str) -> list[tuple[Any, ...]]:
    """Rows of the verdict table as cells, this arm's name in bold, its start first."""
    rows = []
    for arm in summary.ranked:
        shown = Markdown(f"**{escaped(arm.name)}**") if arm.name == name else arm.name
        seeds = ", ".join(percent(v) for v in arm.per_seed) or MISSING
        even = f"{percent(arm.even.win_rate)} ({interval(arm.even.ci95)})" if arm.result.length_controlled else MISSING
        rows.append(
            (shown, percent(arm.win_rate), interval(arm.ci95), seeds, even, fixed(arm.result.mean_length, 1),
             fixed(arm.result.kl, 1), arm.verdict.value)
        )  # fmt: skip
    return rows


def contrasts(summary: Summary, name: str) -> list[tuple[Any, ...]]:
    """This arm against each other one: (other, points, interval, verdict), the baseline first."""
    found = [c for (a, _), c in summary.contrasts.items() if a == name]
    found.sort(key=lambda c: c.b != summary.results.baseline)
    return [(c.b, points(c.difference), points_interval(c.ci95), c.verdict.value) for c in found]


def answers(arm: ArmResult) -> list[tuple[str, str]]:
    """What was measured on the held-out answers, over the arm's seeds."""
    known = (
        ("Mean length", arm.mean_length, lambda v: f"{fixed(v, 1)} tokens"),
        ("Cut at the token limit", arm.truncated, percent),
        ("KL from the start", arm.kl, lambda v: f"{fixed(v, 2)} nats per sequence"),
        ("Entropy of the sampler", arm.entropy, lambda v: f"{fixed(v, 2)} nats per token"),
        ("Distinct word pairs", arm.distinct_2, percent),
        ("Mean of its own training reward", arm.reward, lambda v: fixed(v, 3)),
        ("Mean score by the judge", arm.gold, lambda v: fixed(v, 3)),
        ("Answers that decline", arm.refusal, percent),
        ("Empty answers", arm.empty, percent),
    )
    return [(label, shown(value)) for label, value, shown in known if value is not None]


def spent(subject: Subject) -> list[tuple[str, str]]:
    """What training this one model took, by its own ledger; the stages it shares with others (data, start) are not in it."""
    found = (subject.run.ledgers.get(subject.name) or {}).get(str(subject.seed)) or {}
    if not found:
        return []
    titles = {unit.key: unit.title for unit in COUNTS if unit.key != "seconds"} | {"flops": "FLOPs (estimate)"}
    rows = [(title, amount(found.get(key))) for key, title in titles.items()]
    seconds = found.get("seconds") or {}
    phases = ", ".join(f"{escaped(name)} {duration(value)}" for name, value in seconds.items() if is_number(value))
    total = sum(v for v in seconds.values() if is_number(v))
    return [*rows, ("Time", Markdown(f"{duration(total)} ({phases})"))] if phases else rows


def judged_by(results: Results) -> list[tuple[str, str]]:
    """Who judged, and how it behaved."""
    rows, test = judge_facts(results.judge), results.judge.self_test if results.judge is not None else None
    word = {True: "passed", False: "FAILED", None: "could not be made"}
    return [*rows, ("Self-test on pairs whose verdict is known", word[test.passed])] if test is not None else rows


def failures(subject: Subject, summary: Summary) -> list[str]:
    """Everything the run knows against itself: judge, lost cells, unequal settings, waived checks, over-optimisation."""
    results = subject.run.results
    waived = [f"A check was waived, {entry.check}: {entry.reason}" for entry in results.waived]
    paid = list(reward_faults(results.reward_models, subject))
    if subject.is_reward_model:
        return [*paid, *waived]
    failed = [entry for entry in results.failed or () if not entry.error.startswith("needs ")]
    lost = [f"{entry.node} failed: {_in_short(entry.error)}" for entry in failed]
    unequal = [f"Not held equal between the arms: {line}" for line in results.deviations or ()]
    controlled = subject.result.length_controlled
    notes = [subject.result.note, controlled.note if controlled is not None else "", corrected(summary)]
    judge = judge_warnings(results.judge)
    found = [*judge, *excluded(results), *unscored(results), *lost, *filter(None, notes), *overoptimised(subject, summary)]
    return [*found, *trained_badly(results, subject.name), *paid, *unequal, *waived]


def _in_short(error: str) -> str:
    """The finding of an error, without reasons and ways out.

    >>> _in_short("OSError: no space in x.json; why: the disk is full")
    'OSError: no space in x.json'
    """
    return re.split(r"\n|; (?:why|fix): ", error)[0]


def overoptimised(subject: Subject, summary: Summary) -> Iterator[str]:
    """Signs that an arm bought reward that the judge does not value."""
    arm = next((a for a in summary.arms if a.name == subject.name), None)
    start = next((a for a in summary.arms if a.is_baseline), None)
    if arm is None:
        return
    own, before = arm.result.reward, start.result.reward if start else None
    if arm.verdict is ArmVerdict.WORSE and own is not None and before is not None and own > before:
        yield (
            f"Over-optimisation: it has more training reward than {summary.reference} ({fixed(own, 3)} against "
            f"{fixed(before, 3)}) and was judged worse."
        )
    path = _means(subject.run.results.frontier.get(subject.name, ()))
    if len(path) < 3:
        return
    top = max(path, key=lambda p: p["gold"])
    if top["step"] < path[-1]["step"] and path[-1]["gold"] < top["gold"] and path[-1]["reward"] > top["reward"]:
        yield (
            f"On the few answers watched in training the judge's score was highest at step {top['step']} "
            f"({fixed(top['gold'], 3)}) and {fixed(path[-1]['gold'], 3)} at the end, while the training reward went on rising: "
            "possibly over-optimised."
        )


def _means(points: Sequence[FrontierPoint]) -> list[dict[str, float]]:
    """Watched answers by step, averaged over seeds, in order."""
    steps: dict[int, list[tuple[float, float]]] = {}
    for p in points:
        if p.gold is not None and p.reward is not None:
            steps.setdefault(p.step, []).append((p.gold, p.reward))
    means = ((step, *(sum(values) / len(found) for values in zip(*found, strict=True))) for step, found in sorted(steps.items()))
    return [{"step": step, "gold": gold, "reward": reward} for step, gold, reward in means]


def reward_faults(models: Mapping[str, RewardModelSummary], subject: Subject) -> Iterator[str]:
    """Faults of the reward models that this model is, or was trained on."""
    mentioned = set(_strings(subject.spec.get("reward"))) | {subject.name}
    for name, found in models.items():
        if name in mentioned:
            yield from (f"Reward model {name}: {fault}" for fault in faults(found))
    for name, found in models.items():
        fooled = [PROBES.get(change, change) for change, probe in found.probes.items() if probe.fooled]
        if name in mentioned and fooled:
            yield f"Reward model {name} pays for changes that make no answer better: {', '.join(fooled)}."


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    for inner in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        yield from _strings(inner)


def scored_pairs(run: RunData, name: str) -> list[tuple[str, str, str]]:
    """A reward model's measures on held-out pairs: (label, value, what it means)."""
    found = run.results.reward_models.get(name)
    return list(pair_measures(found)) if found is not None else []


def settings(subject: Subject) -> dict[str, Any]:
    """The stage's settings that decide what was learned."""
    spec = subject.spec
    train = {k: v for k, v in (spec.get("train") or {}).items() if v is not None and v != {}}
    spec = {**spec, "lengths": (spec.get("setup") or {}).get("lengths")}
    kept = {k: spec[k] for k in ("parameters", "reward", "data", "lengths", "sampling") if spec.get(k) not in (None, {}, [])}
    return {**({"method": subject.method} if subject.method else {}), **kept, **({"train": train} if train else {})}


def described(subject: Subject) -> tuple[Markdown, list[tuple[str, Markdown]]]:
    """A method's sentence and its five coordinates with this model's parameters; ("", []) for one that is not registered here."""
    from evenhand.manual.methods import coordinates, paragraphs
    from evenhand.methods import METHODS, build

    name = subject.method
    if name not in METHODS:
        return Markdown(), []
    steps = (subject.spec.get("train") or {}).get("steps") or _steps(subject) or 1
    made = build(name, subject.spec.get("parameters") or {}, steps=steps, max_tokens=subject.lengths["completion"])
    return Markdown(paragraphs(METHODS[name])[0]), [(key, Markdown(text)) for key, text in coordinates(made)]


def _steps(subject: Subject) -> int | None:
    rows = (subject.run.curves.get(subject.name) or {}).get(str(subject.seed)) or ()
    return max((row["step"] for row in rows if is_number(row.get("step"))), default=None)


def versions(run: RunData) -> str:
    return ", ".join(f"{name} {version}" for name, version in (run.experiment.get("versions") or {}).items())


def hashes(record: Mapping[str, Any]) -> list[tuple[str, Markdown]]:
    """What identifies the model and everything it was made from."""
    named = [(f"experiment, {name}", value) for name, value in record["hashes"].items()]
    named += [("this stage", record["key"]), ("data", record["data_key"]), ("chat template", record["template"])]
    named += [(name, value) for name, value in record["files"].items() if name.endswith(".safetensors")]
    return [(name, code(value, cell=True)) for name, value in named if value]
