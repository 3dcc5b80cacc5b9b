"""`tune.html`: every trial of every arm, what was chosen, and how sure the choice is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evenhand import __version__
from evenhand.errors import UserError
from evenhand.report.figures import PlotFigure, csv_text, data_link
from evenhand.report.formatting import amount, fixed
from evenhand.report.page import assets, environment
from evenhand.report.plots.settings import settings_figures
from evenhand.report.style import ArmStyle, arm_styles
from evenhand.report.text import listed
from evenhand.report.tuned import setting_text
from evenhand.results.tuning_record import NAME, TrialRecord, TunedArmRecord, TuningRecord, load


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialRow:
    """One trial as the table has it; `mark` is chosen, alike, behind or failed."""

    number: int
    settings: tuple[str, ...]
    value: str
    ci95: str
    behind: str
    cost: tuple[str, ...]
    mark: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmSection:
    """One arm of the page: a sentence, warnings, a figure per setting, and the trials, best first."""

    name: str
    style: ArmStyle
    method: str
    sentence: str
    warnings: tuple[str, ...]
    space: Mapping[str, str]
    figures: tuple[PlotFigure, ...]
    rows: tuple[TrialRow, ...]


def write(folder: Path) -> Path:
    """`tune.html` beside the `tune.json` of `folder`.

    Raises: UserError when there is no tuning in the folder.
    """
    source = folder / NAME
    if not source.exists():
        raise UserError(f"no {NAME} here", where=str(folder), fix=f"tune first: `evenhand tune EXPERIMENT --out {folder}`")
    path = folder / "tune.html"
    path.write_text(html(load(source)), encoding="utf-8")
    return path


def html(found: TuningRecord) -> str:
    """The page as text, from the content of tune.json."""
    styles = arm_styles([*found.arms, *found.left_out], found.baseline)
    sections = [section(name, raw, styles[name], found) for name, raw in found.arms.items()]
    return environment().get_template("tune.html.j2").render(
        version=__version__, name=found.name, description=found.description, title=_title(found), facts=_facts(found),
        sections=sections, left_out=found.left_out, versions=found.versions, measure=found.measure,
        csv_link=data_link(_csv(found), "text/csv"), steps=found.steps,
        one_seed=len(found.seeds) == 1, **assets(),
    )  # fmt: skip


def _title(found: TuningRecord) -> str:
    return f"{found.trials} trials for each of {len(found.arms)} arms"


def _facts(found: TuningRecord) -> list[tuple[str, str]]:
    return [
        ("Ranked by", found.measure),
        ("Validation prompts", str(found.prompts)),
        ("Seeds of the trials", ", ".join(map(str, found.seeds))),
        ("Seeds of the comparison", ", ".join(map(str, found.comparison.seeds))),
        ("Sampler", found.sampler),
        ("Budget of a trial", "an arm's whole budget" if found.steps == 1 else f"{found.steps:.0%} of an arm's budget"),
    ]


def section(name: str, raw: TunedArmRecord, style: ArmStyle, found: TuningRecord) -> ArmSection:
    """One arm."""
    ranked = sorted(raw.trials, key=lambda t: (t.value is None, -(t.value or 0.0), t.trial))
    return ArmSection(
        name=name, style=style, method=raw.method, sentence=_sentence(raw), warnings=tuple(_warnings(raw)),
        space=raw.space_in_words, figures=tuple(settings_figures(name, raw, style, found.measure)),
        rows=tuple(_row(t, raw) for t in ranked),
    )  # fmt: skip


def _sentence(raw: TunedArmRecord) -> str:
    """What was chosen, and how far it can be told from the others."""
    if raw.chosen is None or raw.settings is None or raw.ci95 is None:
        return "Every trial failed, so the settings stay as they were given."
    words = listed([f"{n} {setting_text(v)}" for n, v in raw.settings.items()])
    low, high = raw.ci95
    sentence = f"Trial {raw.chosen} was best: {words}, at {fixed(raw.value, 3)} ({fixed(low, 3)} to {fixed(high, 3)}). "
    if raw.given_tried and raw.chosen != 1:
        sentence += f"The settings as given reached {fixed(raw.as_given, 3)}. "
    if raw.given_tried and raw.chosen == 1:
        sentence += "These are the settings as they were given. "
    if raw.alike:
        return sentence + f"The best {len(raw.alike) + 1} trials cannot be told apart."
    return sentence + "It can be told from every other trial."


def _warnings(raw: TunedArmRecord) -> list[str]:
    found = [f"{edge}: a wider space may hold a better one." for edge in raw.edges]
    if raw.failed:
        found.append(f"{raw.failed} of {len(raw.trials)} trials failed; they count as the worst.")
    return found


def _row(trial: TrialRecord, raw: TunedArmRecord) -> TrialRow:
    lag, ledger = trial.behind, trial.ledger or {}
    alike = trial.trial in raw.alike
    mark = "failed" if trial.value is None else "chosen" if trial.trial == raw.chosen else "alike" if alike else "behind"
    return TrialRow(
        number=trial.trial,
        settings=tuple(setting_text(trial.settings[name]) for name in raw.space_in_words),
        value=fixed(trial.value, 3),
        ci95=f"{fixed(trial.ci95[0], 3)} to {fixed(trial.ci95[1], 3)}" if trial.ci95 else "–",
        behind=f"{fixed(lag.difference, 3)} ({fixed(lag.ci95[0], 3)} to {fixed(lag.ci95[1], 3)})" if lag else "–",
        cost=tuple(amount(ledger.get(unit)) for unit in ("tokens_trained", "tokens_generated")),
        mark=mark,
        error=trial.error,
    )


def _csv(found: TuningRecord) -> str:
    names = list(dict.fromkeys(name for raw in found.arms.values() for name in raw.space_in_words))
    header = ["arm", "trial", "status", *names, "value", "ci95_low", "ci95_high", "p_holm_to_best"]
    rows = [
        [arm, t.trial, t.status, *(t.settings.get(name) for name in names), t.value, *(t.ci95 or (None, None)),
         t.behind.p_holm if t.behind else None]
        for arm, raw in found.arms.items()
        for t in raw.trials
    ]  # fmt: skip
    return csv_text(header, rows)
