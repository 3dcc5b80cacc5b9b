"""Machine-made data, with engines and judges that answer from a script."""

from __future__ import annotations

import re

import pytest

from evenhand.engines.scripted import ScriptedEngine
from evenhand.errors import UserError
from evenhand.synthesis import (
    Principle,
    SynthesisTask,
    asker,
    critique_and_revise,
    flip_labels,
    invent,
    phrased,
    principles,
    split_by_task,
    tasks,
)  # fmt: skip
from evenhand.synthesis.instructions import fault, listed
from evenhand.types import Completion, Group, Message, Prompt, Sampling


def group(*answers: str, prompt: str = "Why?") -> Group:
    return Group(prompt=Prompt(content=prompt), completions=tuple(Completion(content=a) for a in answers))


# ---- flips -------------------------------------------------------------------------------------------------------------


def test_flips_are_nested_and_of_the_share_asked_for() -> None:
    pairs = [
        Group(prompt=Prompt(content=str(i)), completions=group("a", "b").completions, scores=(1.0, 0.0)) for i in range(2000)
    ]
    flipped = {s: {g.prompt.id for g in flip_labels(pairs, s, seed=0) if g.scores == (0.0, 1.0)} for s in (0.0, 0.1, 0.3, 1.0)}
    assert len(flipped[0.0]) == 0
    assert len(flipped[1.0]) == 2000
    assert len(flipped[0.1]) == pytest.approx(200, abs=4 * (2000 * 0.1 * 0.9) ** 0.5)
    assert flipped[0.1] < flipped[0.3]
    assert all(
        g.parts["flipped"] == ((1.0, 1.0) if g.scores == (0.0, 1.0) else (0.0, 0.0)) for g in flip_labels(pairs, 0.3, seed=0)
    )


def test_a_flipped_soft_label_is_swapped_too() -> None:
    soft = Group(
        prompt=Prompt(content="?"), completions=group("a", "b").completions, scores=(0.7, 0.3), parts={"soft": (0.7, 0.3)}
    )
    (flipped,) = flip_labels([soft], 1.0, seed=0)
    assert flipped.scores == flipped.parts["soft"] == (0.3, 0.7)


# ---- constitution ------------------------------------------------------------------------------------------------------


def scripted(prompt: Prompt, index: int) -> str:
    text = prompt.text
    if text.endswith("Critique:"):
        return "It is rude."
    assert "Critique: It is rude." in text, "the revision sees the critique"
    return "" if "stubborn" in text else f"Gentler ({text.count('Gentler')})."


def test_answers_are_criticised_and_revised() -> None:
    ask = asker(ScriptedEngine(scripted), Sampling())
    kind = Principle("kindness", "Point out what is rude.", "Make it kind.")
    chat = Group(prompt=Prompt(content=(Message("user", "Help me."),)), completions=(Completion(content="No."),))
    first, second = critique_and_revise([chat, group("stubborn")], ask, [kind], rounds=2)
    assert first.answers == ("No.", "Gentler (0).", "Gentler (1).")
    assert first.principles == ("kindness", "kindness")
    assert first.critiques == ("It is rude.", "It is rude.")
    assert first.demonstration.completions[0].content == (Message("assistant", "Gentler (1)."),)
    assert first.pair is not None
    assert [c.text for c in first.pair.completions] == ["Gentler (1).", "No."]
    assert first.pair.scores == (1.0, 0.0)
    assert second.answers == ("stubborn",) * 3
    assert second.pair is None


def test_rounds_use_different_principles() -> None:
    ask = asker(ScriptedEngine(lambda prompt, i: "It is rude." if prompt.text.endswith("Critique:") else "Better."), Sampling())
    (told,) = critique_and_revise([group("x")], ask, principles(), rounds=len(principles()))
    assert sorted(told.principles) == sorted(p.name for p in principles())


def test_a_file_of_principles_is_checked(tmp_path) -> None:
    (tmp_path / "p.yaml").write_text("- {name: a, critique: b}\n")
    with pytest.raises(UserError, match="principle 1 needs name, critique and revision"):
        principles(tmp_path / "p.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- {name: a, critique: what?, revision: b}\n", "p.yaml:1: is not YAML"),
        ("{}\n", "expected a list of principles"),
        (None, "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, text, said) -> None:
    if text is not None:
        (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        principles(tmp_path / "p.yaml")


@pytest.mark.parametrize("text", ["- a\n", "a: {cluster: b}\n", "a: {cluster: b, phrasings: [{question: c}]}\n"])
def test_a_file_of_tasks_is_checked(tmp_path, text) -> None:
    (tmp_path / "t.yaml").write_text(text)
    with pytest.raises(UserError, match=r"expected tasks by name|needs a cluster and phrasings"):
        tasks(tmp_path / "t.yaml")


# ---- instructions ------------------------------------------------------------------------------------------------------

NUMBERS = ("three", "four", "five", "six", "seven", "eight", "nine", "ten")
SEEDS = [f"Name {n} things that are {c}." for n, c in zip(NUMBERS, "abcdefgh", strict=True)]
TOLD = "Explain how a bridge stands.\nTask 10: Draw a picture of a horse.\nTask 11: Explain how a bridge stands.\nTask 12: half a"


def test_new_instructions_are_taken_once_and_answered() -> None:
    def write(prompt: Prompt, index: int) -> str:
        if prompt.text.startswith("Come up with"):
            return TOLD
        return f"Answer to {prompt.text}"

    made = invent(SEEDS, asker(ScriptedEngine(write), Sampling()), count=5, questions=2, rounds=2)
    assert [g.prompt.text for g in made.groups] == ["Explain how a bridge stands."]
    assert made.groups[0].completions[0].text == "Answer to Explain how a bridge stands."
    reasons = {r for _, r in made.left_out}
    assert reasons == {"asks for what text cannot hold (draw)", "like an earlier one"}


def test_questions_show_eight_tasks_of_which_two_are_invented() -> None:
    seen: list[str] = []

    def write(prompt: Prompt, index: int) -> str:
        seen.append(prompt.text)
        return f"{' '.join(chr(97 + len(seen)) * k for k in range(1, 9))}."

    invent(SEEDS, asker(ScriptedEngine(write), Sampling()), count=4, questions=2, rounds=2)
    later = seen[2]
    assert later.count("Task ") == 9
    assert sum(s in later for s in SEEDS) == 6


@pytest.mark.parametrize(
    ("text", "reason"), [("Go on", "too short"), ("word " * 151, "too long"), (SEEDS[0], "like an earlier one")]
)
def test_what_is_no_task(text: str, reason: str) -> None:
    from evenhand.data.minhash import words

    assert fault(text, [words(SEEDS[0])]) == reason


def test_a_list_that_breaks_off() -> None:
    assert listed("One thing.\n2) Another?\nTask 3: and a thi") == ["One thing.", "Another?"]


# ---- tasks -------------------------------------------------------------------------------------------------------------

ROWS = [{"text": f"film {i}", "label": "positive" if i % 2 else "negative"} for i in range(40)]


def test_a_row_is_asked_in_many_ways() -> None:
    sentiment = tasks()["sentiment"]
    groups = phrased(sentiment, ROWS, per_row=2)
    assert len(groups) == 80
    assert {g.prompt.meta["phrasing"] for g in groups} == {0, 1, 2, 3}
    for first, second in zip(groups[::2], groups[1::2], strict=True):
        assert first.prompt.meta["phrasing"] != second.prompt.meta["phrasing"]
    reviews = [g for g in groups if g.prompt.meta["phrasing"] == 0]
    assert reviews[0].prompt.text.startswith("Is this review positive or negative?\n\nfilm ")


def test_exemplars_are_other_rows_in_the_same_words() -> None:
    double = SynthesisTask("double", "mathematics", (("Twice {n}?", "{m}"), ("{n} + {n} =", "{m}")))
    rows = [{"n": n, "m": 2 * n} for n in range(10)]
    for n, g in enumerate(phrased(double, rows, exemplars=2)):
        first, second, asked = g.prompt.text.split("\n\n")
        form = re.compile(r"Twice (\d)\?" if g.prompt.meta["phrasing"] == 0 else r"(\d) \+ \1 =")
        assert form.fullmatch(asked).group(1) == str(n)
        assert g.completions[0].text == str(2 * n)
        for shown in (first, second):
            question, answer = shown.split("\n")
            other = int(form.fullmatch(question).group(1))
            assert other != n
            assert answer == str(2 * other)
        assert first != second


def test_every_builtin_task_has_phrasings_that_fit() -> None:
    for task in tasks().values():
        (g,) = phrased(task, [{name: name.upper() for name in task.fields}])
        assert "{" not in g.prompt.text + g.completions[0].text


def test_no_kind_of_task_is_on_both_sides() -> None:
    groups = [g for t in tasks().values() for g in phrased(t, [{n: n for n in t.fields}])]
    train, held = split_by_task(groups, ["sentiment", "inference"])
    assert {g.prompt.meta["cluster"] for g in held} == {"sentiment", "inference"}
    assert not {g.prompt.meta["cluster"] for g in train} & {"sentiment", "inference"}
    with pytest.raises(UserError, match="no task is of the kind 'sentimnt'"):
        split_by_task(groups, ["sentimnt"])
    train, held = split_by_task(groups, 0.5)
    assert len(train) + len(held) == len(groups)


def test_missing_fields_are_named() -> None:
    with pytest.raises(UserError, match="the rows have no 'label'"):
        phrased(tasks()["sentiment"], [{"text": "x", "lable": "y"}])


@pytest.mark.parametrize(
    "question", ["'{text'", "'{}'", "3", "'{text.__class__}'", "'{text[0]}'", "'{text!r}'", "'{text:>9}'", "''"]
)
def test_a_phrasing_has_nothing_but_fields_in_braces(tmp_path, question) -> None:
    (tmp_path / "t.yaml").write_text(f"x: {{cluster: c, phrasings: [{{question: {question}, answer: '{{label}}'}}]}}")
    with pytest.raises(UserError, match="needs a cluster and phrasings"):
        tasks(tmp_path / "t.yaml")


def test_braces_written_twice_are_braces(tmp_path) -> None:
    (tmp_path / "t.yaml").write_text("x: {cluster: c, phrasings: [{question: '{{a}} {text}', answer: '{label}'}]}")
    (made,) = phrased(tasks(tmp_path / "t.yaml")["x"], [{"text": "{t}", "label": "l"}])
    assert made.prompt.text == "{a} {t}"


def test_principles_are_texts(tmp_path) -> None:
    (tmp_path / "p.yaml").write_text("- {name: a, critique: 3, revision: b}")
    with pytest.raises(UserError, match="principle 1 needs name, critique and revision, each a text"):
        principles(tmp_path / "p.yaml")
