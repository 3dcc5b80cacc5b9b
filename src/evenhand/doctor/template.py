"""Checks of turns and of the chat template: that it renders them, marks what is learned, and does not rewrite what was said."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping

from evenhand.data.chat_templates import TEMPLATES
from evenhand.data.template import Renderer
from evenhand.doctor.context import CheckContext
from evenhand.doctor.examine import from_error
from evenhand.doctor.registry import Finding, check, fail, info, share, shortened, too_many, warn
from evenhand.errors import UserError
from evenhand.types import Content, Group, Message, Prompt

CONTENT = "The cat sat on the mat."


@check(
    "T4",
    "the tokenizer loads and its template renders the data",
    why="turns joined in a way the model was not trained on, or in two ways in two stages, train and judge different models",
    fix="name a template (`model.template: plain`) for a tokenizer without one; take out roles it refuses",
)
def renders(patient: CheckContext) -> Iterator[Finding]:
    if (unread := CheckContext.renderer.error(patient)) is not None:
        yield from_error(unread)
        return
    seen: set[str] = set()
    for done in patient.attempts.values():
        if isinstance(done, UserError) and done.what not in seen:
            seen.add(done.what)
            yield from_error(done)
    for prompt in patient.prompts(20) if not seen else []:
        try:
            patient.renderer.prompt_ids(prompt)
        except UserError as error:
            yield from_error(error)
            return
    given = patient.experiment.model.template
    if given and patient.experiment.model.path and patient.renderer.tokenizer.chat_template and not _ours(patient):
        yield warn(f"`model.template: {given}` has no effect: the tokenizer has a template of its own", fix="remove the setting")
    if not seen:
        yield info(f"template and tokenizer {patient.renderer.fingerprint}, the same for every stage")


@check(
    "T5",
    "the answer is what is learned",
    why="an empty mask trains on nothing, one that is too wide teaches the model to write prompts; the loss looks fine both ways",
    fix="check the {% generation %} marks of the template, the roles of the turns, and `data.supervise`",
)
def supervised(patient: CheckContext) -> Iterator[Finding]:
    for split, done in patient.tokenised.items():
        counted = sum(sum(c.mask) for t in done.groups for c in t.completions)
        total = sum(len(c.ids) for t in done.groups for c in t.completions)
        if done.groups and not counted:
            yield fail(f"no token of {split} is learned", *done.groups[:1])
        elif counted < total:
            yield info(f"{split}: {share(counted, total)} tokens after the prompts are learned", *done.groups[:1])
    if rows := patient.rows(limit=1 if patient.quick else 3):
        yield info("as the model sees it", *rows)


@check(
    "T7",
    "what the template does to thinking and to earlier turns is known",
    why="a template that drops or adds thinking shows training, sampling and judging different text",
    fix="set the template's own option, or use one that keeps turns as they are",
)
def rewriting(patient: CheckContext) -> Iterator[Finding]:
    renderer = patient.renderer
    template = renderer.tokenizer.chat_template
    if not isinstance(template, str):
        return
    turns = (Message("user", CONTENT), Message("assistant", CONTENT), Message("user", CONTENT))
    if any(w in template for w in ("<think>", "enable_thinking", "<|channel|>")):
        yield warn(
            "the template knows thinking; a prompt is rendered so:",
            shortened(renderer.prompt_text(Prompt(content=turns[:1])), 300),
        )
    early = renderer._render.closed(turns[:2], "template probe")
    late = renderer.prompt_text(Prompt(content=turns))
    if not late.startswith(early) and _several_turns(patient):
        yield warn("the template rewrites an answer once a later turn follows", shortened(early, 200), shortened(late, 200))
    if CONTENT not in early or late.count(CONTENT) != 3:
        yield fail("the template leaves out what was said", shortened(late, 200))


@check(
    "T12",
    "the template asks for an answer",
    why="without a generation prompt the model must guess that it is its turn, and may write the user's",
    fix="write the assistant's mark under `{% if add_generation_prompt %}` at the end of the template",
)
def generation_prompt(patient: CheckContext) -> Iterator[Finding]:
    renderer: Renderer = patient.renderer
    begun = [g.prompt.content for groups in patient.splits.values() for g in groups[:20]]
    if not renderer.tokenizer.chat_template or all(isinstance(content, str) for content in begun):
        return
    turns = (Message("user", CONTENT),)
    asked = renderer.prompt_text(Prompt(content=turns))
    whole = renderer._render.closed((*turns, Message("assistant", CONTENT)), "template probe")
    between = whole[: whole.rfind(CONTENT)]
    if not whole.startswith(asked):
        yield warn("the rendered prompt is not how the conversation begins", shortened(asked, 150), shortened(whole, 150))
    elif between[len(asked) :].strip() and "<think" not in between:  # a template's empty thinking block: see T7
        missing = between[len(asked) :]
        yield fail(f"the template puts {missing!r} before an answer, and a prompt does not end with it", shortened(asked, 150))


@check(
    "T14",
    "a model of conversations is asked in turns",
    why="text without the template's turns is none of what it was trained on: it goes on with it and answers nothing",
    fix="`style: chat` in the source makes a prompt a user's turn; `style: verbatim` says that the text is meant as it is",
)
def asked_in_turns(patient: CheckContext) -> Iterator[Finding]:
    if not patient.experiment.model.path or not patient.renderer.tokenizer.chat_template or _ours(patient):
        return
    for split, source in patient.experiment.data.sources.items():
        meant = isinstance(source, Mapping) and (source.get("style") == "verbatim" or "wrap" in source)
        groups = patient.splits.get(split, [])
        texts = [g for g in groups if isinstance(g.prompt.content, str)]
        if texts and not meant:
            whole = share(len(texts), len(groups))
            yield warn(f"{split}: {whole} prompts are text, which the model reads verbatim", shortened(texts[0].prompt.text))


def _ours(patient: CheckContext) -> bool:
    """Whether the renderer's template is the one that the experiment names."""
    return patient.renderer.tokenizer.chat_template.endswith(TEMPLATES.get(str(patient.experiment.model.template), "\0"))


def _several_turns(patient: CheckContext) -> bool:
    groups: list[Group] = [g for rows in patient.splits.values() for g in rows[:200]]
    return any(not isinstance(g.prompt.content, str) and any(m.role == "assistant" for m in g.prompt.content) for g in groups)


THINKING = re.compile(r"<(think|thinking|reasoning)>")


@check(
    "D20",
    "turns alternate and end where an answer belongs",
    why="a prompt that ends with the assistant asks the model to answer itself; an answer by the user trains it to be the user",
    fix="end prompts with the user and answers with the assistant; a wrong role name is a common cause",
)
def turns(patient: CheckContext) -> Iterator[Finding]:
    for split, groups in patient.answered.items():
        wrong = [g for g in groups if any(m.role != "assistant" for c in g.completions for m in _turns(c.content)[-1:])]
        for what, rows in (
            ("prompts end with the assistant's turn", [g for g in groups if _unfinished(g.prompt.content)]),
            ("answers are not the assistant's", wrong),
            ("prompts have one speaker twice in a row", [g for g in groups if _twice(g.prompt.content)]),
        ):
            shown = (shortened(g.prompt.text) for g in rows[:3])
            yield from too_many(len(rows), len(groups), f"{what} in {split}", *shown, warn_above=0.01, fail_above=0.2)


@check(
    "D21",
    "all answers think, or none",
    why="with thinking in some answers only, its presence is learned as a quality of its own, or at random",
    fix="give every answer the form, or take it from all",
)
def thinking(patient: CheckContext) -> Iterator[Finding]:
    for split, groups in patient.answered.items():
        answers = [c.text for g in groups for c in g.completions]
        with_it = sum(bool(THINKING.search(t)) for t in answers)
        open_ended = [t for t in answers if (m := THINKING.search(t)) and f"</{m.group(1)}>" not in t]
        if 0.02 * len(answers) < with_it < 0.98 * len(answers):
            yield warn(f"{share(with_it, len(answers))} answers of {split} have a thinking block, the others none")
        words, shown = f"answers of {split} open a thinking block and never close it", map(shortened, open_ended[:3])
        yield from too_many(len(open_ended), len(answers), words, *shown, warn_above=0.01, fail_above=0.5)


def _turns(content: Content) -> tuple[Message, ...]:
    return () if isinstance(content, str) else content


def _unfinished(content: Content) -> bool:
    """Whether a prompt ends with the assistant without leaving its turn open for the answer (a prefill)."""
    return any(last.role == "assistant" and not last.prefill for last in _turns(content)[-1:])


def _twice(content: Content) -> bool:
    roles = [m.role for m in _turns(content) if m.role in ("user", "assistant")]
    return any(a == b for a, b in itertools.pairwise(roles))
