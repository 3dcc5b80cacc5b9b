"""`evenhand init`: a first experiment file that runs, from a model, a file of data, and TRL's configuration if there is one."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from evenhand.cli.data import renderer_of
from evenhand.cli.models import quiet
from evenhand.data.config import FOR_JUDGES
from evenhand.display import quantile, spelled_out
from evenhand.errors import UserError, did_you_mean
from evenhand.types import Group

if TYPE_CHECKING:
    from evenhand.cli.from_trl import Carried
    from evenhand.data.load import Dataset
    from evenhand.data.template import Renderer

METHOD = {"preferences": "dpo", "demonstrations": "sft", "prompts": "rloo"}
"""What is tried on data of a kind where nobody says."""
LOOKED_AT = 500
"""Rows whose lengths are measured."""


def init(
    out: Annotated[Path, typer.Argument(help="The file to write; one that exists is never replaced.")] = Path("experiment.yaml"),
    model: Annotated[str, typer.Option(help="A model folder or a Hub name.")] = "",
    data: Annotated[str, typer.Option(help="Pairs, demonstrations or prompts: a file, or a data set of the Hub.")] = "",
    method: Annotated[str, typer.Option(help="One of docs/methods.md (default: what fits the data).")] = "",
    from_trl: Annotated[Path | None, typer.Option(help="A configuration of TRL, YAML or JSON, whose settings are taken.")] = None,
) -> None:
    """Write a first experiment file that runs, with a comment on what to change. Asks for what is not given."""
    from evenhand.cli.from_trl import Carried, carried, read

    if out.exists():
        raise UserError("this file exists", where=str(out), fix="name another: evenhand init OTHER.yaml")
    quiet()
    found = carried(read(from_trl), method) if from_trl is not None else Carried(method=method)
    model = model or found.model or _asked("Model (a folder or a Hub name)", "--model")
    data = data or found.data or _asked("Data (a file or a Hub name)", "--data")
    made = starter(out, model, data, found, in_turns=from_trl is None)  # theirs are read verbatim there too
    written = [out]
    if not made.learns_a_judge and not made.reward.exists():
        made.reward.write_text(REWARD, encoding="utf-8")
        written.append(made.reward)
    out.write_text(text(made), encoding="utf-8")
    for line in (*(f"not taken over: {left}" for left in found.left), f"written: {', '.join(map(str, written))}"):
        print(spelled_out(line))
    print(f"next: evenhand run {out} --plan    (what it will do)\n      evenhand run {out}           (do it)")


def _asked(what: str, option: str) -> str:
    if not sys.stdin.isatty():
        raise UserError(f"{what.split(' (')[0].lower()} is not named", where="init", fix=f"add {option} NAME")
    return str(typer.prompt(what)).strip()


def starter(out: Path, model: str, data: str, found: Carried, *, in_turns: bool) -> Starter:
    """What the file will say, from a look at the data and the tokenizer; a model of conversations is asked texts `in_turns`."""
    from evenhand import methods
    from evenhand.data.convert import holdout
    from evenhand.data.load import load
    from evenhand.data.source import is_text, parse_source
    from evenhand.train.method import BINARY, PREFERENCES

    source: str | Mapping[str, str] = data
    loaded = load(source, where="--data")
    renderer = renderer_of(model, None)
    verbatim = all(isinstance(g.prompt.content, str) for g in loaded.groups)
    if in_turns and verbatim and renderer.tokenizer.chat_template and not is_text(parse_source(data)):
        source = {"path" if Path(data).expanduser().exists() else "name": data, "style": "chat"}
        loaded = load(source, where="--data")
    print(spelled_out(loaded.description))
    kind = kind_of(loaded)
    method = methods.METHODS.canonical(found.method or METHOD[kind])
    if method not in methods.METHODS:
        raise UserError(f"unknown method '{method}'", where="--method", fix=did_you_mean(method, methods.METHODS))
    made = methods.build(method, {}, steps=1, max_tokens=64)
    if not made.online and made.split == PREFERENCES and kind != "preferences":
        needs = "labelled answers or pairs" if made.data == BINARY else "pairs"
        raise UserError(
            f"{method} learns from {needs}, these are {kind}", where="--method", fix=f"use {METHOD[kind]}, or other data"
        )
    template = None if renderer.tokenizer.chat_template or verbatim else "plain"
    prompt, completion, about = lengths(loaded.groups, renderer_of(model, template), model)
    held = share_held_out(len(loaded.groups))
    asked = len({g.prompt.id for g in holdout(loaded.groups, held, 0)[1]})
    return Starter(
        name=out.stem, model=model, data=source, kind=kind, method=method, online=made.online, rows=len(loaded.groups),
        holdout=held, asked=max(1, min(200, asked)),
        prompt=found.lengths.get("prompt", prompt), completion=found.lengths.get("completion", completion), about_lengths=about,
        template=template, reward=out.with_name("reward.py"), train=found.train, sampling=found.sampling, arm=found.arm,
        precision=found.precision, seeds=found.seeds,
    )  # fmt: skip


def kind_of(data: Dataset) -> str:
    """The split that rows belong to: pairs and labelled answers, demonstrations, or prompts alone."""
    if any(s == s for g in data.groups for s in g.scores):
        return "preferences"
    return "demonstrations" if any(g.completions for g in data.groups) else "prompts"


def lengths(groups: Sequence[Group], renderer: Renderer, model: str) -> tuple[int, int, str]:
    """(prompt, completion, how they were found): what 99 of 100 rows need, in sixteens, as far as the model's context goes."""
    from evenhand.spec.lengths import window_of_model

    looked = groups[:: max(1, len(groups) // LOOKED_AT)][:LOOKED_AT]
    prompts = quantile([len(renderer.prompt_ids(g.prompt)) for g in looked], 99)
    answered = [g for g in looked if g.completions]
    tokens = renderer.tokenise_all(answered, max_prompt=None, max_completion=None).groups
    answers = quantile([len(c.ids) for t in tokens for c in t.completions], 99)
    prompt, completion = _ample(prompts), _ample(answers) if answers else 128
    about = f"99% of prompts have at most {prompts}" + (f", of answers {answers}" if answers else "")
    window = window_of_model(model)
    if window is not None and prompt + completion > window:
        completion = min(completion, window // 2)
        prompt, about = min(prompt, window - completion), f"{about}; the model's context holds {window}"
    return prompt, completion, about


def _ample(most: int) -> int:
    return max(16, -(-most // 16) * 16)


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
    data: str | Mapping[str, str]
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
        f"  {s.kind}: {_flow(s.data)}  # {s.rows} rows" + ("" if isinstance(s.data, str) else "; chat: texts are a user's turns"),
        f"  holdout: {s.holdout:g}  # of the prompts about this share: nothing trains on them, the comparison asks them",
    ]
    if s.learns_a_judge:
        lines.append("  judge_share: 0.3  # share of the pairs that only the judge learns from")
    return [*lines, f"lengths:  # in tokens; {s.about_lengths}", f"  prompt: {s.prompt}", f"  completion: {s.completion}"]


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
