"""`tuned.yaml`: the experiment as it was given, with every arm's chosen settings in place and a word on where they come from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import yaml

from evenhand.configfile.document import KeyPath, parse
from evenhand.configfile.schema import Loaded, to_json
from evenhand.errors import UserError
from evenhand.results.tuning_record import TuningRecord
from evenhand.spec.experiment import Experiment
from evenhand.spec.search_spaces import space_of
from evenhand.tuning.record import tuned
from evenhand.tuning.trials import with_settings

WIDTH = 120


def tuned_yaml(loaded: Loaded[Any], experiment: Experiment, found: TuningRecord) -> str:
    """A complete experiment file; `evenhand run` takes it as it is."""
    spaces = {name: space_of(arm, experiment) for name, arm in experiment.all_arms().items()}
    chosen = {name: raw.settings for name, raw in found.arms.items() if raw.settings is not None}
    arms = {name: with_settings(raw, chosen.get(name, {})) for name, raw in experiment.arms.items()}
    given = {key: value for key, value in loaded.given.items() if key not in ("arms", "tune", "tuned")}
    data = {
        **given,
        "arms": arms,
        "tune": loaded.given.get("tune") or to_json(experiment.tune),
        "tuned": _without_defaults(to_json(tuned(found, spaces))),
    }
    notes: dict[KeyPath, str] = {("arms", name): _note(name, found) for name in experiment.arms}
    notes["tune",] = "Its prompts stay out of training in this comparison too; its seeds are not among the comparison's."
    notes["tuned",] = "Written by `evenhand tune`; the report shows it."
    head = (
        f"# Made by `evenhand tune` from {found.source}: {found.trials} trials for each of {len(found.arms)} arms, "
        f"by {found.measure}\n# on {found.prompts} validation prompts under seed {', '.join(map(str, found.seeds))}.\n"
    )
    text = head + commented(to_json(data), notes)
    if parse(text, "tuned.yaml").data != to_json(data):
        raise ValueError("tuned.yaml does not read back as what was written")
    return text


def _note(arm: str, found: TuningRecord) -> str:
    raw = found.arms.get(arm)
    if raw is None:
        return f"Not tuned: {found.left_out[arm]}."
    if raw.chosen is None or raw.ci95 is None:
        return f"Not tuned: all of its {len(raw.trials)} trials failed. These are the settings that were given."
    low, high = raw.ci95
    alike = f" {len(raw.alike)} others cannot be told from it." if raw.alike else ""
    edges = "".join(f" {edge}." for edge in raw.edges)
    return f"Trial {raw.chosen} of {len(raw.trials)}: {raw.value:.3g} ({low:.3g} to {high:.3g}).{alike}{edges}"


def _without_defaults(value: Any) -> Any:
    """Nothing that says nothing: null, and empty lists."""
    if isinstance(value, Mapping):
        return {k: _without_defaults(v) for k, v in value.items() if v is not None and v != []}
    return value


def commented(data: Mapping[str, Any], notes: Mapping[KeyPath, str], path: KeyPath = ()) -> str:
    """YAML with notes above the keys they are about; what fits into a line stands in one, other mappings are opened up.

    >>> print(commented({"a": {"b": {"c": [1]}}, "d": 2}, {("a", "b"): "why"}), end="")
    a:
      # why
      b: {c: [1]}
    d: 2
    """
    lines = []
    for key, value in data.items():
        here = (*path, key)
        lines += [f"# {notes[here]}\n"] if here in notes else []
        line = f"{dumped(key)}: {dumped(value)}\n"
        noted = any(len(p) > len(here) and p[: len(here)] == here for p in notes)
        if isinstance(value, Mapping) and value and (noted or len(line) > WIDTH):
            line = f"{dumped(key)}:\n" + _indented(commented(value, notes, here))
        lines.append(line)
    return "".join(lines)


def _indented(text: str) -> str:
    return "".join(f"  {line}" for line in text.splitlines(keepends=True))


class _Dumper(yaml.SafeDumper):
    """Quotes text that our reader, whose YAML is the 1.2 core schema, would not read back as the same text."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if _reads_back(text) else '"')


def _reads_back(text: str) -> bool:
    try:
        return parse(text, "text").data == text
    except UserError:
        return True  # not plain text at all; PyYAML quotes it by itself


_Dumper.add_representer(str, _text)


def dumped(value: Any) -> str:
    """A value as YAML in one line."""
    text = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf, default_flow_style=True)
    return text.removesuffix("...\n").strip()
