"""IFEval's instructions: one text that follows each and one that does not."""

import pytest

from evenhand.errors import UserError
from evenhand.rewards.constraints import CHECKS, followed, ifeval
from evenhand.types import Completion, Group, Prompt

CASES = {
    "keywords:existence": ({"keywords": ["red", "fox"]}, "A Red fox.", "A red dog."),
    "keywords:forbidden_words": ({"forbidden_words": ["rock"]}, "rocket", "a Rock!"),
    "keywords:frequency": ({"keyword": "ha", "frequency": 2, "relation": "at least"}, "Haha", "ha"),
    "keywords:letter_frequency": ({"letter": "q", "let_frequency": 2, "let_relation": "less than"}, "quick", "Q and q"),
    "length_constraints:number_words": ({"num_words": 3, "relation": "at least"}, "one two three", "one two"),
    "length_constraints:number_sentences": ({"num_sentences": 2, "relation": "less than"}, "Only 3.5 one!", "One. Two."),
    "length_constraints:number_paragraphs": ({"num_paragraphs": 2}, "a\n***\nb", "a\n\nb"),
    "length_constraints:nth_paragraph_first_word": (
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "then"},
        "a\n\nThen, b",
        "Then a\n\nb",
    ),
    "detectable_content:number_placeholders": ({"num_placeholders": 2}, "[name] of [town]", "[name]"),
    "detectable_content:postscript": ({"postscript_marker": "P.S."}, "Bye\nP.S. more", "Bye"),
    "detectable_format:number_bullet_lists": ({"num_bullets": 2}, "* a\n- b", "* a\n* b\n* c"),
    "detectable_format:constrained_response": ({}, "My answer is maybe.", "Maybe"),
    "detectable_format:number_highlighted_sections": ({"num_highlights": 2}, "*a* and *b*", "*a* and b"),
    "detectable_format:multiple_sections": (
        {"section_spliter": "PART", "num_sections": 2},
        "PART 1\na\nPART 2\nb",
        "PART 1\na",
    ),
    "detectable_format:json_format": ({}, '```json\n{"a": 1}\n```', "{a: 1}"),
    "detectable_format:title": ({}, "<<Dawn>>\nx", "<< >>\nx"),
    "combination:two_responses": ({}, "one******two", "one******one"),
    "combination:repeat_prompt": ({"prompt_to_repeat": "Say it."}, "say it. Yes.", "Yes. Say it."),
    "startend:end_checker": ({"end_phrase": "The end."}, 'So: "the end."', "The end. Or not"),
    "startend:quotation": ({}, '"all of it"', '"half" of it'),
    "punctuation:no_comma": ({}, "a b", "a, b"),
    "change_case:capital_word_frequency": ({"capital_frequency": 2, "capital_relation": "less than"}, "BIG deal", "BIG DEAL"),
}
NEED_LANGDETECT = {"language:response_language", "change_case:english_capital", "change_case:english_lowercase"}


def test_every_instruction_has_a_case():
    assert set(CASES) | NEED_LANGDETECT == set(CHECKS)


@pytest.mark.parametrize("name", sorted(CASES))
def test_instruction(name):
    options, good, bad = CASES[name]
    assert followed(good, [name], [options]) == [True]
    assert followed(bad, [name], [options]) == [False]
    assert followed("  ", [name], [options]) == [False]


def test_case_is_checked_before_the_language():
    assert followed("Not small", ["change_case:english_lowercase"], [{}]) == [False]
    assert followed("Not CAPITAL", ["change_case:english_capital"], [{}]) == [False]


def test_the_reward_is_the_share_followed():
    meta = {"instruction_id_list": ["punctuation:no_comma", "startend:quotation"], "kwargs": [{"num_words": None}, {}]}
    group = Group(prompt=Prompt(content="p", meta=meta), completions=(Completion(content='"a"'), Completion(content="b")))
    found = ifeval()([group])[0]
    assert found.values == (1.0, 0.5)
    assert found.parts == {"all": (1.0, 0.0)}


def test_unknown_instructions_and_relations_get_a_hint():
    with pytest.raises(UserError, match="punctuation:no_comma"):
        followed("a", ["punctuation:no_commas"], [{}])
    with pytest.raises(UserError, match="at least"):
        followed("a", ["length_constraints:number_words"], [{"num_words": 1, "relation": "at last"}])


def test_real_instructions_are_all_known(real_data):
    import json

    file = real_data / "data" / "instruct" / "ifeval_input_data.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        names = [n for n in row["instruction_id_list"] if n not in NEED_LANGDETECT]
        options = [k for n, k in zip(row["instruction_id_list"], row["kwargs"], strict=True) if n not in NEED_LANGDETECT]
        assert len(followed("Some answer, of one sentence.", names, options)) == len(names)
    assert len(rows) == 541


def test_json_that_is_nested_without_end_is_no_json():
    assert followed("[" * 100_000, ["detectable_format:json_format"], [{}]) == [False]


@pytest.mark.parametrize(
    ("names", "kwargs", "message"),
    [
        ([], [], "lists of names and of their options"),
        (["punctuation:no_comma"], [], "lists of names and of their options"),
        ("punctuation:no_comma", [{}], "lists of names and of their options"),
        (["punctuation:no_comma"], [None], "cannot be checked"),
        (["punctuation:no_comma"], [{"x": 1}], "cannot be checked: .*unexpected keyword argument 'x'"),
        (["keywords:frequency"], [{"keyword": "a"}], "cannot be checked: .*missing 2 required"),
        (["keywords:existence"], [{"keywords": ["("]}], "cannot be checked: missing \\)"),
    ],
)
def test_instructions_that_cannot_be_checked_are_said_with_their_prompt(names, kwargs, message):
    prompt = Prompt(content="p", id="p7", meta={"instruction_id_list": names, "kwargs": kwargs})
    with pytest.raises(UserError, match=message) as error:
        ifeval()([Group(prompt=prompt, completions=(Completion(content="a"),))])
    assert error.value.where == "reward ifeval, prompt p7"
