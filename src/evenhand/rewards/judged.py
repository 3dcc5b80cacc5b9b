"""A language model that judges, as a reward: a grade for each answer, a tournament of a group, a criterion met or not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from evenhand.configfile.schema import from_signature
from evenhand.errors import UserError, one_of
from evenhand.judges import LLMJudge
from evenhand.judges import template as templates
from evenhand.judges.config import LLM, LocalLLM, build, problem
from evenhand.judges.template import Template
from evenhand.rewards.tournament import Tournament
from evenhand.types import Group, Scores

if TYPE_CHECKING:
    from evenhand.data.template import Renderer
    from evenhand.models.policy import Policy

Open = Callable[[str], "tuple[Policy, Renderer]"]
"""A folder or hub name -> the judging model and its renderer."""
KINDS: Mapping[str, type[LLM | LocalLLM]] = {"llm": LLM, "local": LocalLLM}
CRITERION = "criterion"
"""The template that asks whether an answer meets a criterion, which stands where it says <criterion>."""


def settings_of(given: Any, *, where: str) -> LLM | LocalLLM:
    """A judging model's settings, checked: the keys of `judge:` for `llm` and `local`."""
    kind = given.get("kind") if isinstance(given, Mapping) else None
    one_of("kind of judge", str(kind), KINDS, where=f"{where}.kind")
    made = KINDS[str(kind)](**from_signature(KINDS[str(kind)], given, where))
    if (fault := problem(made)) is not None:
        raise fault.placed(fault.where.replace("judge", where, 1))
    if made.repeats > 1:
        raise UserError("a reward asks each question once", where=f"{where}.repeats", fix="remove it")
    return made


def criterion(text: str) -> Template:
    """The question whether an answer meets the criterion that `text` states."""
    template = templates.get(CRITERION)
    return replace(template, user=template.user.replace("<criterion>", text))


def open_plainly(path: str) -> tuple[Policy, Renderer]:
    """A judging model outside of an experiment: as it is stored, on the device that is there."""
    from evenhand.data.template import Renderer
    from evenhand.models.load import load_policy, load_tokenizer, resolve_device

    return load_policy(path, device=resolve_device("auto")), Renderer(load_tokenizer(path))


class JudgedReward:
    """A judging model's opinion of answers, asked by `template`.

    A single template: its grade of each answer, or by `verdict: logprobs` the mean of the labels' values under the model's own
    probabilities (GenRM, arXiv:2408.15240: P(yes)); NaN where nothing could be read. A pair template: a tournament of the
    group's answers by `rule`. The model is opened at the first question.
    """

    def __init__(self, make: Callable[[], LLMJudge], template: Template, *, rule: str = "borda") -> None:
        self._make, self.template, self.rule = make, template, rule

    @cached_property
    def judge(self) -> LLMJudge:
        return self._make()

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        if self.template.kind == "pair":
            return Tournament(self.judge, rule=self.rule)(groups)
        grades = iter(self.judge.grade([(g.prompt, c) for g in groups for c in g.completions]))
        return [Scores(tuple(next(grades) for _ in g.completions)) for g in groups]


def judged(
    given: Any, open_model: Open | None, *, where: str, template: Template | None = None, rule: str = "borda"
) -> JudgedReward:
    """The reward of a judging model's settings; `template` in place of the one that they name."""
    settings = settings_of(given, where=where)
    return JudgedReward(
        partial(_opened, settings, open_model or open_plainly, template), template or templates.get(settings.template), rule=rule
    )


def _opened(settings: LLM | LocalLLM, open_model: Open, template: Template | None) -> LLMJudge:
    made = build(settings, opened=None if isinstance(settings, LLM) else open_model(settings.path), template=template)
    assert isinstance(made, LLMJudge), "a reward's judge does not repeat itself"
    return made
