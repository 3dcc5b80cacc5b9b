"""A finished run as a page of docs/results, and the demo's table in the README. Figures come from results.json, nothing by hand.

A page that exists and has a part between `<!-- figures:begin -->` and `<!-- figures:end -->` keeps its own words around it.

python -m benchmarks.results runs/quickstart docs/results/quickstart.md --readme README.md --command "make demo"
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import more_tables, origin, parts
from benchmarks.machine import cores, installed, processor
from benchmarks.page import interval, percent

BLOCK = re.compile(r"(<!-- demo:begin -->\n).*?(<!-- demo:end -->)", re.S)
FIGURES = re.compile(r"(<!-- figures:begin -->\n).*?(<!-- figures:end -->)", re.S)
WITHOUT_PAPER = re.compile(r"(<svg [^>]*>)")
"""Where a sheet goes under a figure, whose ink a dark page would swallow."""
MOST_CONTRASTS = 50
SHOWN = 4
"""Held-out prompts shown with every arm's answer: the first ones, never chosen by result."""


def machine() -> str:
    """What the figures were measured on."""
    return f"{processor()}, {cores()} cores, Python {platform.python_version()}, torch {installed('torch')}"


def table(run: Path) -> str:
    """The verdict table as the terminal shows it."""
    from evenhand.report import table as verdict_table
    from evenhand.results import load

    console = Console(width=80, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(verdict_table(load(run / "results.json")))
    return "\n".join(line.rstrip() for line in console.export_text().splitlines()).strip("\n")


def arm_rows(results: dict[str, Any]) -> str:
    """One markdown row per arm: the verdict and what it cost."""
    head = "| arm | win rate % | 95 % interval | per seed | gold | reward | KL, nats | tokens | distinct-2 | cut % |"
    rows = [head, "|---" * 10 + "|"]
    for name, a in results["arms"].items():
        ends = interval(a["ci95"])
        seeds = ", ".join(percent(s) for s in a["per_seed"])
        reward = "–" if a["reward"] is None else f"{a['reward']:.2f}"
        rate = "–" if name == results["baseline"] else percent(a["win_rate"])
        measured = f"{a['kl']:.1f} | {a['mean_length']:.1f} | {a['distinct_2']:.2f} | {percent(a['truncated'])}"
        rows.append(f"| {name} | {rate} | {ends} | {seeds} | {a['gold']:.3f} | {reward} | {measured} |")
    return "\n".join(rows)


def reward_model_rows(results: dict[str, Any]) -> str:
    out = []
    for name, r in results["reward_models"].items():
        ceiling = "" if r.get("label_ceiling") is None else f", the labels allow {percent(r['label_ceiling'])}"
        out.append(
            f"Reward model `{name}`: accuracy {percent(r['accuracy'])} % on {r['n']} held-out pairs "
            f"({interval(r['ci95'])}{ceiling}), "
            f"log-loss {r['log_loss']:.3f}, mean margin {r['mean_margin']:.2f}, "
            f"correlation with length {r['length_correlation']:.2f}."
        )
    return "\n\n".join(out)


def contrast_rows(results: dict[str, Any]) -> str:
    """A row per contrast; of many arms only those with the baseline, the others are in results.json."""
    found = results["contrasts"]
    if len(found) > MOST_CONTRASTS:
        found = [c for c in found if results["baseline"] in (c["a"], c["b"])]
    rows = ["| contrast | difference, points | 95 % interval | p (Holm) | verdict |", "|---" * 5 + "|"]
    for c in found:
        low, high = (max(-1.0, c["ci95"][0]), min(1.0, c["ci95"][1]))
        ends = f"{100 * low:+.1f} to {100 * high:+.1f}"
        who = f"{c['a']} against {c['b']}"
        rows.append(f"| {who} | {100 * c['difference']:+.1f} | {ends} | {c['p_holm']:.3f} | {c['verdict']} |")
    return "\n".join(rows)


def right_or_wrong(results: dict[str, Any]) -> bool:
    """Whether the judge gave 1 or 0, ties aside: then every seed's win rate is 1/2 plus half the difference in mean score."""
    arms, baseline = results["arms"], results["baseline"]
    start = arms.get(baseline, {}).get("gold_per_seed") or [None]
    others = [a for name, a in arms.items() if name != baseline and a.get("gold_per_seed")]
    seen = [row for a in others for row in zip(a["per_seed"], a["gold_per_seed"], start, strict=False)]
    return bool(seen) and all(None not in row and abs(row[0] - 0.5 - (row[1] - row[2]) / 2) < 1e-9 for row in seen)


def solved_rows(results: dict[str, Any]) -> str:
    """Share of prompts solved by each arm, and its lead over the baseline: twice that of the win rate, since ties count half."""
    if not right_or_wrong(results):
        return ""
    lead = {c["a"]: c for c in results["contrasts"] if c["b"] == results["baseline"]}
    rows = ["| arm | solved % | per seed | difference, points | 95 % interval |", "|---" * 5 + "|"]
    for name, a in results["arms"].items():
        c = lead.get(name)
        more = "– | –" if c is None else f"{200 * c['difference']:+.1f} | {200 * c['ci95'][0]:+.1f} to {200 * c['ci95'][1]:+.1f}"
        rows.append(f"| {name} | {percent(a['gold'])} | {', '.join(percent(s) for s in a['gold_per_seed'])} | {more} |")
    return "\n".join(["The judge says solved or not. Prompts solved, and the difference to the baseline:", "", *rows])


def samples(results: dict[str, Any], *, prompts: bool) -> str:
    """Answers side by side. Without `prompts` only what the models wrote: the prompts belong to somebody's data."""
    blocks = []
    for number, sample in enumerate(results["samples"][:SHOWN], 1):
        title = sample["prompt"] if prompts else f"Prompt {number}"
        lines = [f"- *{arm}* ({sample['gold'][arm]:+.2f}): {' '.join(text.split())}" for arm, text in sample["answers"].items()]
        blocks.append("\n".join([f"**{title}**", "", *lines]))
    return "\n\n".join(blocks)


def pictures(run: Path, names: list[str], place: Path) -> str:
    """Figures of the run's own report as SVG files beside the page, each with the sentence that says how to read it."""
    from evenhand import load

    found, blocks = load(run), []
    for name in names:
        figure = found.plot(name)
        file = place.with_name(f"{place.stem}-{figure.name}.svg")
        figure.save(file)
        file.write_text(WITHOUT_PAPER.sub(r'\1<rect width="100%" height="100%" fill="#ffffff"/>', file.read_text(), count=1))
        blocks.append(f"![{figure.title}]({file.name})\n\n*{figure.caption}*")
    return "\n\n".join(blocks)


def figures(results: dict[str, Any], run: Path, command: str, place: Path, names: list[str]) -> str:
    """Everything measured: where, the arms, the judge's parts, the reward models, the contrasts, and what was held equal."""
    seeds, asked, judge = len(results["seeds"]), results["n_prompts"], results["judge"]["name"]
    blocks = [
        f"Measured on {machine()}. {seeds} seed{'s' * (seeds != 1)}, {asked} held-out prompts, judge: {judge}. Regenerate:",
        f"    {command}\n    python -m benchmarks.results RUN_DIRECTORY {place.as_posix()}"
        + "".join(f" --figure {name}" for name in names),
        pictures(run, names, place),
        solved_rows(results),
        arm_rows(results),
        f"Win rates are against `{results['baseline']}`, ties count half; intervals are over seeds and prompts.",
        parts.table(run, list(results["arms"]), results["baseline"]),
        reward_model_rows(results),
        contrast_rows(results),
        more_tables.over_training(results),
        more_tables.evaluations(results),
        more_tables.took(run),
        f"Held equal: {' '.join(results['held_equal'])} Not held equal: {'; '.join(results['deviations']) or 'nothing'}.",
    ]
    return "\n\n".join(p.strip("\n") for p in blocks if p) + "\n"


def page(results: dict[str, Any], run: Path, command: str, place: Path, names: list[str], *, prompts: bool) -> str:
    """The whole page; of one with its own words only the figures are new."""
    measured = figures(results, run, command, place, names)
    before = place.read_text() if place.exists() else ""
    if FIGURES.search(before):
        return FIGURES.sub(lambda m: m[1] + measured + m[2], before)
    return f"""# {results["name"]}

{results["description"]}

{measured}
## Answers

The first {SHOWN} held-out prompts of the first seed, with the judge's score.

{samples(results, prompts=prompts)}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("--readme", type=Path)
    parser.add_argument("--command", default="evenhand run EXPERIMENT")
    parser.add_argument("--note", default="")
    parser.add_argument("--hide-prompts", action="store_true", help="for data that may not be passed on")
    parser.add_argument("--figure", action="append", default=[], help="a figure of the run's report, as SVG beside the page")
    given = parser.parse_args()
    results = json.loads((given.run / "results.json").read_text())
    given.page.parent.mkdir(parents=True, exist_ok=True)
    text = page(results, given.run, given.command, given.page, given.figure, prompts=not given.hide_prompts)
    origin.write(given.page, given.run)
    given.page.write_text(origin.marked(text, origin.mark(origin.of_run(given.run), origin.code_versions())))
    if given.readme:
        shown = "\n".join("    " + line if line else "" for line in table(given.run).splitlines())
        block = f"{shown}\n\n(Measured on {machine()}. {given.note})\n".replace(". )", ".)")
        given.readme.write_text(BLOCK.sub(lambda m: m[1] + block + m[2], given.readme.read_text()))


if __name__ == "__main__":
    main()
