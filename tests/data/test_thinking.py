"""Templates that open a block of thoughts, and templates that rewrite what was said before."""

import pytest

from evenhand.data.template import Renderer
from evenhand.data.thinking import left_open
from evenhand.errors import UserError
from evenhand.types import Completion, Group, Prompt
from tests.data.templates_in_use import ENDS_ONLY, OPENS, OPENS_AND_CLOSES, REWRITES, A, U, learned, texts, tokenizer

THOUGHT, BARE = "<think>\nadd them\n</think>\nFour.", "Two."


def demonstration(*turns) -> Group:
    return Group(prompt=Prompt(content=turns[:-1]), completions=(Completion(content=turns[-1:]),))


@pytest.mark.parametrize(
    ("template", "opening", "answer", "expected"),
    [
        (OPENS, "Assistant: <think>\n", THOUGHT, "add them\n</think>\nFour.</s>"),
        (OPENS, "Assistant: <think>\n", BARE, "\n</think>\n\nTwo.</s>"),
        (OPENS, "Assistant: <think>\n", "add them\n</think>\nFour.", "add them\n</think>\nFour.</s>"),  # as it was sampled
        (OPENS_AND_CLOSES, "assistant\n<think>\n", THOUGHT, "add them\n</think>\nFour.<|im_end|>"),
        (OPENS_AND_CLOSES, "assistant\n<think>\n", BARE, "</think>Two.<|im_end|>"),  # what the template itself writes
        (ENDS_ONLY, "<think>", THOUGHT, "\nadd them\n</think>\nFour.</s>"),
        (ENDS_ONLY, "<think>", BARE, "</think>Two.</s>"),
        (REWRITES, "assistant\n", THOUGHT, "<think>\nadd them\n</think>\n\nFour.<|im_end|>"),
        (REWRITES, "assistant\n", BARE, "<think>\n\n</think>\n\nTwo.<|im_end|>"),
    ],
)
def test_an_answer_is_never_learned_inside_an_open_block(template, opening, answer, expected):
    ((prompt, said),) = learned(template, demonstration(U("One plus one?"), A(answer)))
    assert prompt.endswith(opening)
    assert said == expected
    assert (prompt + said).count("<think>") == (prompt + said).count("</think>") == 1


def test_a_pair_behind_an_open_block():
    pair = Group(prompt=Prompt(content=(U("q"),)), completions=(Completion(content=THOUGHT), Completion(content=BARE)))
    renderer = Renderer(tokenizer(OPENS))
    done = renderer.tokenise(pair, max_prompt=None, max_completion=None)
    decode = renderer.tokenizer.decode
    assert [decode(c.ids) for c in done.completions] == ["add them\n</think>\nFour.</s>", "\n</think>\n\nTwo.</s>"]


def test_thoughts_without_an_end_leave_the_row_out():
    renderer = Renderer(tokenizer(OPENS))
    groups = [demonstration(U("q"), A("<think>\nadd")), demonstration(U("q"), A(BARE))]
    done = renderer.tokenise_all(groups, max_prompt=None, max_completion=None)
    assert done.dropped == ((0, "an answer opens <think> and never closes it"),)
    assert [texts(renderer, g)[1] for g in done.groups] == ["\n</think>\n\nTwo.</s>"]


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("a<think>\n", "</think>"),
        ("[THINK]", "[/THINK]"),
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        ("a<think>\n\n</think>\n\n", None),
        ("<assistant>", None),
        ("about <think> tags: ", None),
    ],
)
def test_which_block_a_prompt_leaves_open(text, end):
    block = left_open(text)
    assert (block and block.end) == end


LONG = (U("One?"), A("<think>\na\n</think>\n\nTwo."), U("More?"), A("<think>\nb\n</think>\n\nFive."))


@pytest.mark.parametrize("template", [REWRITES, OPENS])
def test_thinking_conversations_are_learned_turn_by_turn_as_they_are_sampled(template, caplog):
    """The template takes the thoughts of the first answer away once the second question comes; each is learned in its place."""
    first, second = learned(template, demonstration(*LONG), "assistant")
    begin, end = ("<|im_start|>assistant\n", "<|im_end|>") if template is REWRITES else ("Assistant: <think>\n", "</s>")
    opened = "" if template is OPENS else "<think>\n"
    assert first[0].endswith(f"One?{'<|im_end|>' if template is REWRITES else ''}\n{begin}")
    assert first[1] == f"{opened}a\n</think>\n\nTwo.{end}"
    assert "Two." in second[0]
    assert "a\n</think>" not in second[0]
    assert second[0].endswith(begin)
    assert second[1] == f"{opened}b\n</think>\n\nFive.{end}"
    assert sum("each answer is learned behind the turns" in r.message for r in caplog.records) == 1
    assert learned(template, demonstration(*LONG)) == [second], "supervise: completion learns the last answer alone"


def test_pairs_of_rewritten_turns_are_refused_with_the_way_out():
    answers = (LONG[1:], (A("<think>\na\n</think>\n\nTwo."), U("More?"), A("no")))
    pair = Group(prompt=Prompt(content=LONG[:1]), completions=tuple(Completion(content=a) for a in answers))
    with pytest.raises(UserError, match="rewrites turn 2") as error:
        Renderer(tokenizer(REWRITES)).tokenise(pair, max_prompt=None, max_completion=None)
    assert "a row of its own" in error.value.fix


def test_turns_without_thoughts_stay_one_group():
    group = demonstration(U("One?"), A("Two."), U("More?"), A("Five."))
    ((prompt, said),) = learned(OPENS.replace("<think>\n", ""), group, "assistant")
    assert said == "Two.</s>Five.</s>"
    assert prompt == "<s>User: One?\nAssistant: "
