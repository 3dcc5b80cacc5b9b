"""The README.md of an exported model: what it is, how it was made, what was found, what is known against it, how to use it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import yaml

from evenhand import __version__
from evenhand.export import facts, origin, usage
from evenhand.export.about import About
from evenhand.export.markdown import environment, fenced
from evenhand.export.metadata import metadata
from evenhand.report.summary import summarise

_TEMPLATES = Path(__file__).parent / "templates"


def text(about: About) -> str:
    """The card: metadata for the Hub, then Markdown. What comes from data, models or the experiment file is text there."""
    head = metadata(about.subject, about.license, library="peft" if about.adapter else "transformers").to_yaml()
    page = environment(jinja2.FileSystemLoader(_TEMPLATES)).get_template("card.md.j2")
    return f"---\n{head}\n---\n\n{page.render(**_context(about))}"


def _context(about: About) -> dict[str, Any]:
    subject = about.subject
    run, summary = subject.run, summarise(subject.run.results)
    arm = next((a for a in summary.arms if a.name == subject.name), None) if not subject.is_reward_model else None
    sentence, coordinates = facts.described(subject)
    sources, rows = origin.data_in_words(run)
    settings = origin.public(facts.settings(subject))
    return {
        "about": about, "subject": subject, "summary": summary, "arm": arm, "version": __version__,
        "description": run.results.description,
        "finding": facts.finding(summary, arm, subject.seed) if arm is not None else "",
        "base": origin.base_in_words(run), "start": origin.start_in_words(run, str(subject.meta.get("name") or "")),
        "method": subject.method or None, "sentence": sentence, "coordinates": coordinates,
        "settings": fenced(_yaml(settings), "yaml") if settings else "",
        "sources": sources, "rows": rows, "datasets": origin.datasets(run),
        "spent": facts.spent(subject), "judge": facts.judged_by(run.results) if not subject.is_reward_model else [],
        "table": facts.verdict_table(summary, subject.name) if arm is not None else [],
        "contrasts": facts.contrasts(summary, subject.name),
        "answers": facts.answers(arm.result) if arm is not None else [],
        "measures": facts.scored_pairs(run, subject.name) if subject.is_reward_model else [],
        "failures": facts.failures(subject, summary),
        "versions": facts.versions(run), "hashes": facts.hashes(about.record),
        "config": fenced(_yaml(origin.public(subject.effective)), "yaml") if subject.effective else "",
        "command": fenced(usage.command(subject), "sh"), "snippet": fenced(usage.snippet(about), "python"),
        "notes": usage.notes(about),
    }  # fmt: skip


def _yaml(value: Any) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
