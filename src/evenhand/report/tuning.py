"""`tune.html`: every trial of every arm, what was chosen, and how sure the choice is."""

from __future__ import annotations

from pathlib import Path

from evenhand import __version__
from evenhand.errors import UserError
from evenhand.report.figures import csv_text
from evenhand.report.formatting import fixed, setting_text, with_interval
from evenhand.report.page import assets, environment
from evenhand.report.plots.settings import settings_figures
from evenhand.report.style import arm_styles
from evenhand.report.text import listed
from evenhand.results.tuning_record import NAME, TunedArmRecord, TuningRecord, load


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
    return environment().get_template("tune.html.j2").render(
        version=__version__, tuning=found, styles=styles, chosen=_chosen, csv=_csv(found),
        figures={name: settings_figures(name, arm, styles[name], found.measure) for name, arm in found.arms.items()}, **assets(),
    )  # fmt: skip


def _chosen(arm: TunedArmRecord) -> str:
    """What was chosen, and how far it can be told from the others."""
    if arm.chosen is None or arm.settings is None or arm.ci95 is None:
        return "Every trial failed, so the settings stay as they were given."
    words = listed([f"{n} {setting_text(v)}" for n, v in arm.settings.items()])
    sentence = f"Trial {arm.chosen} was best: {words}, at {with_interval(arm.value, arm.ci95)}. "
    if arm.given_tried:
        reached = f"The settings as given reached {fixed(arm.as_given, 3)}. "
        sentence += "These are the settings as they were given. " if arm.chosen == 1 else reached
    if arm.alike:
        return sentence + f"The best {len(arm.alike) + 1} trials cannot be told apart."
    return sentence + "It can be told from every other trial."


def _csv(found: TuningRecord) -> str:
    names = list(dict.fromkeys(name for arm in found.arms.values() for name in arm.space_in_words))
    header = ["arm", "trial", "status", *names, "value", "ci95_low", "ci95_high", "p_holm_to_best"]
    rows = [
        [name, t.trial, t.status, *(t.settings.get(setting) for setting in names), t.value, *(t.ci95 or (None, None)),
         t.behind.p_holm if t.behind else None]
        for name, arm in found.arms.items()
        for t in arm.trials
    ]  # fmt: skip
    return csv_text(header, rows)
