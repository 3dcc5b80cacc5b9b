"""From a row to groups, one function per family of formats. `formats.py` says which columns call which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from evenhand.data import chat_cleaning, rules
from evenhand.data.contents import (
    answered,
    continued,
    optional_text,
    prompt_content,
    refuse_empty,
    refuse_strange,
    system_turn,
)  # fmt: skip
from evenhand.data.convert import MARGIN
from evenhand.data.jsonl import NotCanonical, group_from_json
from evenhand.data.rows import Row
from evenhand.data.values import shown
from evenhand.types import Content, Finish, Group, Message

STEP = "step"
"""In meta of a row of steps: how many steps its answer has."""
GRADES = (("chosen_score", "rejected_score"), ("score_chosen", "score_rejected"), ("chosen_rating", "rejected_rating"))
"""Columns in which public pairs carry ratings."""


# preference pairs -------------------------------------------------------------------------------------------------------


def _grades(row: Row) -> tuple[float, float]:
    """The scores of (chosen, rejected): ratings when the row has them, else (1, 0)."""
    names = next((g for g in GRADES if row.has(g[0]) and row.has(g[1])), None)
    if names is None or row.reading.grades == "ignore":
        return 1.0, 0.0
    chosen, rejected = row.number(names[0]), row.number(names[1])
    if chosen <= rejected:
        raise row.bad(
            names[0],
            f"{chosen:g} is not above the rejected answer's {rejected:g}",
            why="labels and ratings disagree about which answer is better",
            fix="set grades: ignore to keep the labels",
        )
    return chosen, rejected


def _compared(row: Row, prompt: Content, answers: Mapping[str, Content], meta: Mapping[str, Any]) -> Group:
    """A pair with its scores, and the margin that the data ask of their difference, if they do (TRL's column `margin`)."""
    given = row.has("margin") and row.reading.grades != "ignore"
    parts = {MARGIN: (row.number("margin"),) * 2} if given else {}
    return answered(row, prompt, answers, _grades(row), meta, parts=parts)


def pair(row: Row, prompt_name: str = "prompt", *, chat: bool = False, meta: Mapping[str, Any]) -> list[Group]:
    """A preference pair with its prompt in a column of its own."""
    prompt = prompt_content(row, prompt_name, chat=chat)
    prompt, answers = continued(row, prompt, {"chosen": row.content("chosen"), "rejected": row.content("rejected")})
    return [_compared(row, prompt, answers, meta)]


def pair_implicit(row: Row, *, meta: Mapping[str, Any]) -> list[Group]:
    """A preference pair whose prompt is what both sides share: turns, transcript turns, or words."""
    sides = {name: row.content(name, empty=True) for name in ("chosen", "rejected")}
    if row.reading.transcripts == "turns" and all(chat_cleaning.is_transcript(s) for s in sides.values()):
        sides = {name: chat_cleaning.turns(str(s)) for name, s in sides.items()}
    kinds = {isinstance(s, str) for s in sides.values()}
    if len(kinds) != 1:
        raise row.bad("rejected", "chosen and rejected differ in form (text against turns)")
    prompt, answers = _split_text(row, sides) if kinds == {True} else _split_turns(row, sides)
    return [_compared(row, prompt, answers, meta)]


def _split_turns(row: Row, sides: Mapping[str, Any]) -> tuple[Content, Mapping[str, Content]]:
    shared = chat_cleaning.shared_turns(list(sides.values()))
    if not shared:
        raise row.bad("rejected", "shares no first turn with chosen, so there is no prompt", fix="add a prompt column")
    prompt = sides["chosen"][:shared]
    refuse_empty(row, "chosen", prompt)
    rest = {n: t[shared:] for n, t in sides.items()}
    refuse_strange(row, rest)
    return prompt, rest


def _split_text(row: Row, sides: Mapping[str, Any]) -> tuple[Content, Mapping[str, Content]]:
    for name in sides:
        row.text(name)  # says which side is empty
    if sides["chosen"] == sides["rejected"]:
        raise row.bad("rejected", "is the same text as chosen, so the prompt cannot be told apart", fix="add a prompt column")
    shared = chat_cleaning.shared_text(list(sides.values()))
    if not shared:
        raise row.bad("rejected", "shares no first word with chosen, so there is no prompt", fix="add a prompt column")
    rest = {name: text[len(shared) :] for name, text in sides.items()}
    for name, text in rest.items():
        if not text.strip():
            raise row.bad(name, "is nothing but the prompt that both sides share")
    return shared, rest


# demonstrations, binary feedback ----------------------------------------------------------------------------------------


def demonstration(
    row: Row, prompt_name: str = "prompt", answer_name: str = "completion", *, chat: bool = False, meta: Mapping[str, Any]
) -> list[Group]:
    """A prompt and one answer; `chat` makes strings turns of a conversation unless the reading says verbatim."""
    prompt = prompt_content(row, prompt_name, chat=chat)
    prompt, answers = continued(row, prompt, {answer_name: row.content(answer_name)})
    return [answered(row, prompt, answers, (math.nan,), {**meta, **_final_answer(row, answer_name)}, prompt_name=prompt_name)]


def _final_answer(row: Row, name: str) -> dict[str, str]:
    """GSM8K writes the result behind "####"; rewards want it alone, without thousands separators."""
    value = row.get(name)
    if not isinstance(value, str) or "####" not in value:
        return {}
    return {"answer": value.rpartition("####")[2].strip().replace(",", "")}


def instruction(row: Row, answer_name: str = "output", *, meta: Mapping[str, Any]) -> list[Group]:
    """Alpaca and Dolly rows: instruction, optional input or context below it, optional system and history, an answer."""
    prompt = _instruction_prompt(row, row.text("instruction"), _below(row))
    return [answered(row, prompt, {answer_name: _as_turn(prompt, row.text(answer_name))}, (math.nan,), meta)]


def instruction_prompt(row: Row, *, meta: Mapping[str, Any]) -> list[Group]:
    """An instruction without an answer."""
    return [answered(row, _instruction_prompt(row, row.text("instruction"), _below(row)), {}, (), meta)]


def instruction_pair(row: Row, *, meta: Mapping[str, Any]) -> list[Group]:
    """An instruction with a chosen and a rejected answer."""
    prompt = _instruction_prompt(row, row.text("instruction"), _below(row))
    prompt, answers = continued(row, prompt, {"chosen": row.content("chosen"), "rejected": row.content("rejected")})
    return [_compared(row, prompt, answers, meta)]


def _below(row: Row) -> str:
    """What the instruction is about: `input` (Alpaca) or `context` (Dolly)."""
    return optional_text(row, "input") or optional_text(row, "context")


def instances(row: Row, *, meta: Mapping[str, Any]) -> list[Group]:
    """Self-Instruct rows: one instruction with several {input, output} instances, a group for each."""
    groups = []
    for index, item in enumerate(row.items("instances"), 1):
        output = item.get("output") if isinstance(item, Mapping) else None
        if not isinstance(output, str) or not output.strip():
            raise row.bad("instances", f"instance {index} has no output text")
        asked = item.get("input") or ""
        if not isinstance(asked, str):
            raise row.bad("instances", f"instance {index}: expected its input as text, found {shown(asked)}")
        row.whole("instances", asked + output)
        prompt = _instruction_prompt(row, row.text("instruction"), asked)
        groups.append(answered(row, prompt, {"instances": _as_turn(prompt, output)}, (math.nan,), meta))
    return groups


def _instruction_prompt(row: Row, text: str, more: str) -> Content:
    text = f"{text}\n\n{more}" if more.strip() else text
    if row.reading.style == "verbatim":
        return row.reading.wrap.replace("{prompt}", text) if row.reading.wrap else text
    return (*system_turn(row), *_history(row), Message("user", text))


def _history(row: Row) -> tuple[Message, ...]:
    """Earlier turns as [[question, answer], ...]."""
    turns: list[Message] = []
    given = row.get("history") if row.has("history") else ()  # an empty list says nothing
    for item in given if isinstance(given, list | tuple) else (given,):
        if not isinstance(item, list | tuple) or len(item) != 2 or not all(isinstance(t, str) for t in item):
            raise row.bad("history", "expected [[question, answer], ...]")
        turns += [Message("user", row.whole("history", item[0])), Message("assistant", row.whole("history", item[1]))]
    return tuple(turns)


def _as_turn(prompt: Content, answer: str) -> Content:
    return answer if isinstance(prompt, str) else (Message("assistant", answer),)


def conversation(row: Row, name: str = "messages", *, meta: Mapping[str, Any]) -> list[Group]:
    """A conversation that ends with the assistant: the last answer is the completion, all before is the prompt."""
    turns = _with_system(row, row.messages(name))
    if turns[-1].role != "assistant":
        raise row.bad(name, f"ends with a turn of the {turns[-1].role}, not with an answer", fix="add the answer")
    learned = [i for i, m in enumerate(turns) if m.role == "assistant" and m.train]
    if not learned:
        raise row.bad(name, "every turn of the assistant has weight 0, so that nothing would be learned")
    turns = turns[: learned[-1] + 1]  # what comes after the last learned turn changes nothing about it
    if len(turns) < 2:
        raise row.bad(name, "has an answer but nothing before it")
    return [answered(row, turns[:-1], {name: turns[-1:]}, (math.nan,), meta, prompt_name=name)]


def open_conversation(row: Row, name: str = "messages", *, meta: Mapping[str, Any]) -> list[Group]:
    """A conversation that waits for an answer."""
    turns = _with_system(row, row.messages(name))
    if turns[-1].role == "assistant" and not turns[-1].prefill:
        fix = "take the answer off, or mark it as begun: prefix: true"
        raise row.bad(name, "ends with an answer, but the others are prompts", fix=fix)
    return [answered(row, turns, {}, (), meta, prompt_name=name)]


def _with_system(row: Row, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    return turns if turns[0].role == "system" else (*system_turn(row), *turns)


def conversation_pair(row: Row, name: str = "conversations", *, meta: Mapping[str, Any]) -> list[Group]:
    """ShareGPT pairs: a conversation up to the question, and two answers to it."""
    opening = _with_system(row, row.messages(name))
    prompt, answers = continued(row, opening, {"chosen": row.content("chosen"), "rejected": row.content("rejected")})
    return [_compared(row, prompt, answers, meta)]


def labelled(groups: Sequence[Group], label: float) -> list[Group]:
    """Demonstrations judged good (1) or bad (0)."""
    return [Group(prompt=g.prompt, completions=g.completions, scores=(label,) * len(g.completions)) for g in groups]


def rated(groups: Sequence[Group], ratings: Sequence[Mapping[str, float]], scores: Sequence[float] = ()) -> list[Group]:
    """One group's answers with their ratings by attribute as parts; one that an answer lacks is NaN."""
    names = dict.fromkeys(name for row in ratings for name in row)
    parts = {name: tuple(row.get(name, math.nan) for row in ratings) for name in names}
    return [replace(g, scores=tuple(scores) or (math.nan,) * len(g.completions), parts=parts) for g in groups]


def ratings_in(row: Row, name: str, value: Any) -> dict[str, float]:
    """Ratings of one answer, `{"helpfulness": 3, "verbosity": null}`; null is none."""
    if not isinstance(value, Mapping):
        raise row.bad(name, f"expected ratings by attribute, found {shown(value)}", fix='write {"helpfulness": 3}')
    return {str(key): row.as_number(name, number) for key, number in value.items() if number is not None}


def rated_ranking(row: Row, *, meta: Mapping[str, Any]) -> list[Group]:
    """Several answers, each with ratings by attribute; `scores` may say besides which is better."""
    given = row.items("ratings")
    group = _ranked(row, prompt_content(row, "prompt", chat=False), "completions", meta, scored=row.has("scores"))
    if len(given) != len(group.completions):
        raise row.bad("ratings", f"{len(given)} values for {len(group.completions)} completions", fix="give one per completion")
    return rated([group], [ratings_in(row, "ratings", value) for value in given], group.scores)


def rated_columns(row: Row, *, columns: Sequence[str], meta: Mapping[str, Any]) -> list[Group]:
    """An answer whose ratings stand in columns of their own, as in HelpSteer."""
    ratings = {name: row.number(name) for name in columns if row.has(name)}
    return rated(demonstration(row, answer_name="response", meta=meta), [ratings])


# several answers, prompts, text -----------------------------------------------------------------------------------------


def ranking(
    row: Row, prompt_name: str = "prompt", answers_name: str = "completions", *, chat: bool = False, meta: Mapping[str, Any]
) -> list[Group]:
    """Several answers with scores (null = unscored) or ranks (1 = best, turned into k - rank), or with neither."""
    return [_ranked(row, prompt_content(row, prompt_name, chat=chat), answers_name, meta)]


def instruction_ranking(row: Row, answers_name: str = "generations", *, meta: Mapping[str, Any]) -> list[Group]:
    """An instruction with several answers and their ratings, as distilabel writes them."""
    return [_ranked(row, _instruction_prompt(row, row.text("instruction"), _below(row)), answers_name, meta)]


def _ranked(row: Row, prompt: Content, name: str, meta: Mapping[str, Any], *, scored: bool = True) -> Group:
    answers = {f"{name}[{i}]": _answer(row, name, i, a) for i, a in enumerate(row.items(name))}
    prompt, contents = continued(row, prompt, answers)
    scores = _ranking_scores(row, len(contents)) if scored else (math.nan,) * len(contents)
    return answered(row, prompt, contents, scores, meta)


def _answer(row: Row, name: str, index: int, value: Any) -> Content:
    if not isinstance(value, str):
        return row.messages(name, value)
    if not value.strip():
        raise row.bad(name, f"answer {index + 1} is empty")
    return row.whole(name, value)


def _ranking_scores(row: Row, count: int) -> tuple[float, ...]:
    name = next((n for n in ("scores", "ratings", "ranks") if row.has(n)), None)
    if name is None:
        return (math.nan,) * count
    values = row.items(name)
    if len(values) != count:
        raise row.bad(name, f"{len(values)} values for {count} completions", fix="give one per completion (null = unscored)")
    numbers = tuple(math.nan if v is None else row.as_number(name, v) for v in values)
    return tuple(count - n for n in numbers) if name == "ranks" else numbers


def stepwise(row: Row, steps_name: str = "steps", *, meta: Mapping[str, Any]) -> list[Group]:
    """An answer in steps, each with a label: a group per step, whose answer is all that was written up to its end.

    A step is right (1, true) or not (0, false, -1); one whose label is null is read and not learned. A field `separator` says
    what a step ends with, in place of a line break. In meta stands which step it is (`STEP`), counted from 1.
    """
    separator = row.text("separator", empty=True) if row.has("separator") else "\n"
    if not separator:
        raise row.bad("separator", "is empty", fix="give what steps end with")
    prompt, steps, labels = prompt_content(row, "prompt", chat=False), row.items(steps_name), row.items("labels")
    if len(steps) != len(labels) or not steps:
        raise row.bad("labels", f"{len(labels)} labels for {len(steps)} steps", fix="give one per step (null = unlabelled)")
    if not all(isinstance(step, str) and step.strip() for step in steps):
        raise row.bad(steps_name, "expected a list of steps as text, none of them empty")
    made, text = [], ""
    for number, (step, label) in enumerate(zip(steps, labels, strict=True), 1):
        whole = number == len(steps)
        text += step.removesuffix(separator).rstrip("\n") + ("" if whole else separator)
        if label is None:
            continue
        if label not in (0, 1, -1):
            raise row.bad("labels", f"expected 0 or 1 (or -1), found {shown(label)}")
        group = answered(row, prompt, {steps_name: row.whole(steps_name, text)}, (float(label == 1),), {**meta, STEP: number})
        ending = Finish.GIVEN if whole else Finish.LENGTH  # no stop token behind a step that is not the last
        made.append(replace(group, completions=tuple(replace(c, finish=ending) for c in group.completions)))
    return made


def prompt_only(row: Row, name: str = "prompt", *, chat: bool = False, meta: Mapping[str, Any]) -> list[Group]:
    prompt = rules.opened(prompt_content(row, name, chat=chat))
    return [answered(row, prompt, {}, (), meta, prompt_name=name)]


def referenced(row: Row, name: str, *, meta: Mapping[str, Any]) -> list[Group]:
    """A question and its reference answer in `label`, as OpenRLHF writes prompts for a checker: it is `answer` in meta."""
    label = row.get("label")
    if not isinstance(label, str | bool | int | float) or (isinstance(label, float) and not math.isfinite(label)):
        raise row.bad("label", f"expected a reference answer, found {shown(label)}")
    prompt = rules.opened(prompt_content(row, name, chat=True))
    return [answered(row, prompt, {}, (), {**meta, "answer": label}, prompt_name=name)]


def first_turn(row: Row, *, meta: Mapping[str, Any]) -> list[Group]:
    """MT-Bench rows: the first question is the prompt; all questions stay in meta as `turns`."""
    questions = row.items("turns")
    if not all(isinstance(q, str) and q.strip() for q in questions):
        raise row.bad("turns", "expected a list of questions as text")
    asked = row.whole("turns", questions[0])
    return [answered(row, (Message("user", asked),), {}, (), {**meta, "turns": questions})]


def document(row: Row, *, meta: Mapping[str, Any]) -> list[Group]:
    """Running text: a demonstration with an empty prompt (load.py can take openings off it)."""
    return [answered(row, "", {"text": row.text("text")}, (math.nan,), meta)]


def canonical(row: Row, *, meta: Mapping[str, Any]) -> list[Group]:
    """A line that `write_groups` wrote."""
    try:
        group = group_from_json(row.data)
    except NotCanonical as error:
        raise row.bad(error.key, f"not a group as evenhand writes it: {error}") from None
    row.whole("prompt", group.prompt.text)
    for completion in group.completions:
        row.whole("completions", completion.text)
    return [group]
