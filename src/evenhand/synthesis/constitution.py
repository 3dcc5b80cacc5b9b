"""Constitutional data: a model criticises its own answer by a principle, and revises it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evenhand.errors import UserError
from evenhand.seeding import rng
from evenhand.synthesis.files import is_text, read_yaml
from evenhand.synthesis.generation import Ask
from evenhand.types import Completion, Content, Group, Message, Prompt

BUILTIN = Path(__file__).parent / "principles.yaml"
CRITIQUE = "{conversation}\n\nCritique request: {request}\n\nCritique:"
REVISION = "{conversation}\n\nCritique: {critique}\n\nRevision request: {request}\n\nRevision:"


@dataclass(frozen=True, slots=True)
class Principle:
    """What to look for in an answer, and how to mend it."""

    name: str
    critique: str
    revision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Revised:
    """One prompt's answers from the first to the last, with the principle and the critique of each round."""

    prompt: Prompt
    answers: tuple[str, ...]
    principles: tuple[str, ...]
    critiques: tuple[str, ...]

    @property
    def demonstration(self) -> Group:
        """The prompt with its last revision, for supervised training."""
        return Group(prompt=self.prompt, completions=(_completion(self.prompt, self.answers[-1]),))

    @property
    def pair(self) -> Group | None:
        """The last revision preferred to the first answer; None when nothing was changed."""
        if self.answers[-1] == self.answers[0]:
            return None
        answers = (_completion(self.prompt, self.answers[-1]), _completion(self.prompt, self.answers[0]))
        return Group(prompt=self.prompt, completions=answers, scores=(1.0, 0.0))

    def to_json(self) -> dict[str, Any]:
        """The whole history, for people."""
        steps = [{"principle": p, "critique": c} for p, c in zip(self.principles, self.critiques, strict=True)]
        return {"prompt": self.prompt.text, "id": self.prompt.id, "answers": list(self.answers), "steps": steps}


def principles(path: Path | str = BUILTIN) -> list[Principle]:
    """Principles of a YAML file: a list of `{name, critique, revision}`; by default those that come with evenhand."""
    rows = read_yaml(path)
    if not isinstance(rows, list) or not rows:
        raise UserError("expected a list of principles", where=str(path), fix="- {name: ..., critique: ..., revision: ...}")
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or set(row) != {"name", "critique", "revision"} or not all(map(is_text, row.values())):
            raise UserError(f"principle {number} needs name, critique and revision, each a text", where=str(path))
    return [Principle(**row) for row in rows]


def first_answers(prompts: Sequence[Prompt], ask: Ask) -> list[Group]:
    """Prompts with the model's own first answers, to be criticised; those it leaves empty are not there."""
    answers = ask([p.content for p in prompts])
    return [Group(prompt=p, completions=(_completion(p, a),)) for p, a in zip(prompts, answers, strict=True) if a]


def critique_and_revise(
    groups: Sequence[Group], ask: Ask, chosen: Sequence[Principle], *, rounds: int = 1, seed: int = 0
) -> list[Revised]:
    """The first answer of each group criticised and revised `rounds` times, each time by a principle drawn at random.

    Different rounds of one prompt use different principles as long as there are. An empty revision keeps the answer.
    Source: Bai et al. 2022, Constitutional AI, section 3.1.
    """
    if rounds < 1 or not chosen:
        raise UserError("critique and revision need one round and one principle at least", where="constitution")
    orders = [rng(seed, "principles", g.prompt.id, place).permutation(len(chosen)) for place, g in enumerate(groups)]
    answers = [[g.completions[0].text] for g in groups]
    critiques: list[list[str]] = [[] for _ in groups]
    for turn in range(rounds):
        used = [chosen[order[turn % len(chosen)]] for order in orders]
        shown = [conversation(g.prompt.content, a[-1]) for g, a in zip(groups, answers, strict=True)]
        found = ask([CRITIQUE.format(conversation=s, request=p.critique) for s, p in zip(shown, used, strict=True)])
        mended = ask(
            [REVISION.format(conversation=s, critique=c, request=p.revision) for s, c, p in zip(shown, found, used, strict=True)]
        )
        for place, (critique, revision) in enumerate(zip(found, mended, strict=True)):
            critiques[place].append(critique)
            answers[place].append(revision or answers[place][-1])
    return [
        Revised(
            prompt=g.prompt,
            answers=tuple(answers[i]),
            principles=tuple(chosen[orders[i][t % len(chosen)]].name for t in range(rounds)),
            critiques=tuple(critiques[i]),
        )
        for i, g in enumerate(groups)
    ]


def conversation(content: Content, answer: str) -> str:
    """Turns as lines with their speakers, the answer last."""
    turns = (Message("user", content),) if isinstance(content, str) else content
    names = {"user": "Human", "assistant": "Assistant", "system": "System", "tool": "Tool"}
    return "\n\n".join([*(f"{names.get(m.role, m.role)}: {m.text}" for m in turns), f"Assistant: {answer}"])


def _completion(prompt: Prompt, text: str) -> Completion:
    return Completion(content=text if isinstance(prompt.content, str) else (Message("assistant", text),))
