"""The text of a first experiment file, with a comment on everything that one may want to change."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evenhand.data.config import FOR_JUDGES

REWARD = '''"""A reward of your own: evenhand calls `score` with a prompt and one answer; higher is better.

`prompt.text` and `completion.text` are texts. `prompt.meta` holds the other columns of the data, such as a right answer.
Return a number, None for an answer that cannot be scored, or a dict of parts of which `reward` counts.
"""


def score(prompt, completion):
    """Replace this: it likes short answers of whole sentences."""
    text = completion.text.strip()
    words = len(text.split())
    return (1.0 if text.endswith((".", "!", "?")) else 0.0) - abs(words - 20) / 20
'''


FEWEST = 20
"""Pairs of which a judge may learn from a share; of fewer it would learn nothing, and there may be none."""


@dataclass(frozen=True, kw_only=True)
class Starter:
    """What is known when a file is begun: the model, the data and of what kind they are, the method, lengths, settings."""

    name: str
    model: str
    data: str
    kind: str
    method: str
    online: bool
    rows: int
    holdout: float
    asked: int
    prompt: int
    completion: int
    about_lengths: str
    template: str | None = None
    reward: Path = Path("reward.py")
    train: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    arm: Mapping[str, Any] = field(default_factory=dict)
    precision: Mapping[str, str] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)

    @property
    def learns_a_judge(self) -> bool:
        """Whether the judge is a reward model of pairs that no arm has; else it is a function of the user's."""
        return self.kind == "preferences" and self.rows >= FEWEST

    @property
    def step(self) -> int:
        """Prompts of a step: an epoch shall have about twenty steps, if there are so few rows."""
        return max(2, min(32, self.rows // 20))


def share_held_out(rows: int) -> float:
    """The share that gives fifty held-out prompts, between a tenth and a third of the rows.

    >>> share_held_out(60), share_held_out(250), share_held_out(10_000)
    (0.33, 0.2, 0.1)
    """
    return round(min(0.33, max(0.1, 50 / max(rows, 1))), 2)


def text(s: Starter) -> str:
    """The file, in YAML."""
    return "\n".join([*_head(s), *_data(s), *_train(s), *_rewards(s), *_arms(s), *_judge(s)]) + "\n"


def _head(s: Starter) -> list[str]:
    lines = [
        "# An experiment: every arm starts from the same model, on the same prompts; a judge compares their answers.",
        "# Every key: `evenhand keys`, `evenhand keys train`, or docs/reference.md. In an editor, complete and check keys with",
        "#   evenhand keys --json-schema > experiment.schema.json    and as the first line of this file:",
        "#   yaml-language-server: $schema=experiment.schema.json",
        f"name: {_yaml(s.name)}",
        f"seeds: {_yaml(list(s.seeds))}  # [0, 1, 2] to learn how much training runs differ",
        "model:",
        f"  path: {_yaml(s.model)}  # a folder, or a name of the Hub",
    ]
    lines += [_line(key, value, "") for key, value in s.precision.items()]
    return lines + ([f"  template: {s.template}  # the tokenizer brings no chat template"] if s.template else [])


def _data(s: Starter) -> list[str]:
    lines = [
        "data:",
        f"  {s.kind}: {_yaml(s.data)}  # {s.rows} rows",
        f"  holdout: {s.holdout:g}  # of the prompts about this share: nothing trains on them, the comparison asks them",
    ]
    if s.learns_a_judge:
        lines.append("  judge_share: 0.3  # share of the pairs that only the judge learns from")
    return [
        *lines,
        f"lengths:  # in tokens; {s.about_lengths}",
        f"  prompt: {s.prompt}",
        f"  completion: {s.completion}",
    ]


def _train(s: Starter) -> list[str]:
    budget = ({} if "steps" in s.train else {"epochs": 1}) | {"prompts_per_step": s.step} | dict(s.train)
    notes = {
        "epochs": "or `steps:`", "prompts_per_step": "whatever fits into memory at once: that is tokens_per_microbatch",
        "learning_rate": "without it, each method has its own", "adapter": "low-rank changes in place of all weights",
    }  # fmt: skip
    lines = ["train:  # for all arms; an arm may differ in a `train:` of its own"]
    lines += [_line(key, value, notes.get(key, "")) for key, value in budget.items()]
    if "sample_every" not in budget:
        lines.append("  # sample_every: 20   # answers while it trains, on the page")
    if "adapter" not in budget:
        lines.append("  # adapter: {rank: 16}   # trains less than all weights: less memory")
    if s.sampling:
        lines += ["sampling:", *(_line(key, value, "") for key, value in s.sampling.items())]
    return lines


def _rewards(s: Starter) -> list[str]:
    own = [f"rewards:\n  mine: {{kind: function, path: {_yaml(f'{s.reward.name}:score')}}}  # yours: change {s.reward}"]
    if not s.learns_a_judge:
        return own
    memory = {key: s.train[key] for key in ("adapter", "gradient_checkpointing") if key in s.train}  # what fits, fits them too
    train = _flow({"epochs": 1, "prompts_per_step": s.step} | memory)
    lines = ["reward_models:", f"  judge_model: {{data: {FOR_JUDGES}, train: {train}}}  # learned from its own pairs"]
    return [*lines, *([f"  rm: {{train: {train}}}  # what the arms learn by"] if s.online else [])]


def _arms(s: Starter) -> list[str]:
    own = {"method": s.method} | ({"reward": "rm" if s.learns_a_judge else "mine"} if s.online else {}) | dict(s.arm)
    return [
        "arms:  # add more: docs/methods.md has them all",
        "  base: {method: start}  # the model as it is: what the others are compared with",
        f"  {s.method}: {_flow(own)}",
    ]


def _judge(s: Starter) -> list[str]:
    if s.learns_a_judge:
        why = "a reward model of pairs that no arm has seen"
        lines = [f"judge: {{reward: judge_model}}  # {why}"]
    else:
        why = "who is judged by the reward it trained on proves little" if s.online else "it says what you would have"
        lines = [f"judge: {{reward: mine}}  # replace it: {why}"]
    return [
        *lines,
        "# judge: {kind: llm, model: NAME, endpoint: http://localhost:8000/v1}   # a language model, asked in both orders",
        "evaluation:",
        f"  prompts: {s.asked}  # held-out prompts that every arm answers",
    ]


def _line(key: str, value: Any, note: str) -> str:
    return f"  {key}: {_flow(value)}" + (f"  # {note}" if note else "")


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_flow(v)}" for k, v in value.items()) + "}"
    return _yaml(value)


def _yaml(value: Any) -> str:
    """A value as YAML on one line; text in quotes where YAML would read something else.

    >>> _yaml("runs/a b"), _yaml("yes"), _yaml(1e-06), _yaml([0, 1])
    ('runs/a b', '"yes"', '1.0e-06', '[0, 1]')
    """
    if isinstance(value, str):
        plain = value.replace("/", "").replace("_", "").replace("-", "").replace(".", "").replace(" ", "").isalnum()
        safe = plain and value[0].isalpha() and value.lower() not in ("yes", "no", "on", "off", "true", "false", "null", "y", "n")
        return value if safe else json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and "e" in repr(value) and "." not in repr(value):
        return repr(value).replace("e", ".0e")
    return json.dumps(value)
