"""Templates: what is sent, and what may be read as a verdict."""

from __future__ import annotations

import pytest

from evenhand.errors import UserError
from evenhand.judges import template as templates
from evenhand.types import Message, Prompt

LETTERS = [
    ("Comparison: fine.\nPreferred: A", 1.0),
    ('Preferred: "B"', 0.0),
    ("**Preferred:** B.", 0.0),
    ("Preferred: A\nOn reflection:\nPreferred: B", 0.0),  # the last one counts
    ("more helpful: a", 1.0),
    ("I choose\nB", 0.0),
    ("(A)", 1.0),
    ("Preferred: tie", None),
    ("Preferred: A and B are equal", None),
    ("Preferred: A/B", None),
    ("Both A and B are good", None),
    ("As an AI I cannot judge.", None),
    ("", None),
    ("Comparison: A is better", None),
]


@pytest.mark.parametrize("name", ["helpfulness", "safety"])
@pytest.mark.parametrize(("text", "value"), LETTERS)
def test_letters_are_read_strictly(name, text, value):
    if name == "safety" and text.startswith("more helpful"):
        value = None
    found = templates.get(name).read(text)
    assert (None if found is None else found[1]) == value


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("mt_bench_pair", "The string [[A]] was quoted, but my verdict is [[B]]", 0.0),
        ("mt_bench_pair", "[[C]]", 0.5),
        ("mt_bench_pair", "A wins", None),
        ("mt_bench_single", "Rating: [[7.5]]", 7.5),
        ("mt_bench_single", "Rating: [[0]]", None),
        ("mt_bench_single", "Rating: [[eight]]", None),
        ("arena_hard", "my verdict: [[A>>B]]", 1.0),
        ("arena_hard", "[[b>a]]", 0.0),
        ("arena_hard", "[[A=B]]", 0.5),
        ("arena_hard", "[[A<B]]", 0.0),
        ("arena_hard", "[[A]]", None),
        ("alpaca_eval", "m", 1.0),
        ("alpaca_eval", "M", 0.0),
        ("alpaca_eval", "model M", None),
        ("refusal", "[[Refused]]", 1.0),
        ("refusal", "refused", None),
    ],
)
def test_brackets_grades_and_names(name, text, value):
    found = templates.get(name).read(text)
    assert (None if found is None else found[1]) == value


def test_every_builtin_template_loads_and_says_what_it_follows():
    names = templates.builtin()
    assert {"helpfulness", "tldr", "alpaca_eval", "mt_bench_pair", "mt_bench_single", "arena_hard", "safety", "refusal"} <= set(
        names
    )
    for name in names:
        assert templates.get(name).follows
        assert templates.get(name).name == name


def test_answers_are_put_in_as_they_are():
    a, b = "{answer_b} {question} {x} \\1 %s", "second"
    text = templates.get("helpfulness").messages(Prompt(content="{answer_a}?"), answer_a=a, answer_b=b)[-1].content
    assert f"<answer A>\n{a}\n</answer A>" in text
    assert "<answer B>\nsecond\n</answer B>" in text
    assert "<question>\n{answer_a}?\n</question>" in text


def test_turns_are_named_and_references_are_needed():
    turns = (Message("user", "One?"), Message("assistant", "Yes."), Message("user", "Two?"))
    text = templates.get("mt_bench_single").messages(Prompt(content=turns), answer="No.")[-1].content
    assert "User: One?\n\nAssistant: Yes.\n\nUser: Two?" in text
    reference = templates.get("mt_bench_pair_reference")
    with pytest.raises(UserError, match="no text in 'reference'"):
        reference.messages(Prompt(content="q"), answer_a="a", answer_b="b")
    given = Prompt(content="q", meta={"reference": "42 exactly"})
    assert "42 exactly" in reference.messages(given, answer_a="a", answer_b="b")[-1].content


def test_custom_files_are_checked(tmp_path):
    good = tmp_path / "mine.yaml"
    good.write_text(
        "name: mine\nkind: pair\nuser: '{question} {answer_a} {answer_b}'\npatterns: ['([12])']\nlabels: {'1': 1, '2': 0}\n"
    )
    assert templates.get(str(good)).read("I say 2") == ("2", 0.0)
    for change, message in [
        (("kind: pair", "kind: triple"), "unknown kind"),
        (("{answer_b}", ""), "no place for {answer_b}"),
        (("{question} ", ""), "no place for {question}"),
        (("{question}", "{instruction}"), r"(?s)no place for {question}.*{instruction} is no placeholder"),
        (("{question} {answer_a} {answer_b}", "Which is better?"), "no place for {question}"),
        (("'([12])'", "'[12]'"), "has 0 groups"),
        (("'([12])'", "'(['"), "no regular expression"),
        (("labels: {'1': 1, '2': 0}", ""), "needs `labels`"),
        (("name: mine", "nmae: mine"), "unknown key 'nmae'"),
    ]:
        with pytest.raises(UserError, match=message):
            templates.parse(good.read_text().replace(*change), where="mine.yaml")
    with pytest.raises(UserError, match="did you mean 'helpfulness'"):
        templates.get("helpfulnes")


def test_the_hash_follows_every_word():
    one = templates.get("helpfulness")
    text = (templates.FOLDER / "helpfulness.yaml").read_text()
    assert templates.parse(text, where="x").sha == one.sha
    assert templates.parse(text.replace("fairly", "very fairly"), where="x").sha != one.sha
    assert templates.parse(text.replace("follows:", "follows: 'x' #"), where="x").sha == one.sha
