"""One rule in every reader: begun turns are continued, prompts are not repeated, neighbouring turns are said."""

import json

import pytest

from evenhand.data.load import load
from evenhand.data.stream import GroupStream
from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.types import Message, Prompt
from tests.data.templates_in_use import OPENS, PLAIN, REWRITES, A, U, learned, read, tokenizer

BEGUN = [{"role": "user", "content": "Two plus two?"}, {"role": "assistant", "content": "The answer is"}]
FOUR, FIVE = [{"role": "assistant", "content": " four."}], [{"role": "assistant", "content": " five."}]
OPEN = (U("Two plus two?"), Message("assistant", "The answer is", prefill=True))

READERS = {
    "demonstration": {"prompt": BEGUN, "completion": FOUR},
    "demonstration, text": {"prompt": BEGUN, "completion": " four."},
    "pair": {"prompt": BEGUN, "chosen": FOUR, "rejected": FIVE},
    "pair, all of it twice": {"prompt": BEGUN, "chosen": BEGUN + FOUR, "rejected": BEGUN + FIVE},
    "conversation pair": {"conversations": BEGUN, "chosen": FOUR[0], "rejected": FIVE[0]},
    "label": {"prompt": BEGUN, "completion": FOUR, "label": True},
    "ranking": {"prompt": BEGUN, "completions": [FOUR, " five."], "scores": [1, 0]},
    "context": {"context_messages": BEGUN, "chosen": FOUR, "rejected": FIVE},
    "transcript": {"prompt": "\n\nHuman: Two plus two?\n\nAssistant: The answer is", "chosen": " four.", "rejected": " five."},
}
FORMATS = {"conversation pair": "conversations/chosen/rejected"}
"""A format whose rows as a rule end with the user is not guessed for a begun turn."""


@pytest.mark.parametrize("name", READERS)
def test_a_prompt_that_ends_with_the_assistant_is_continued(tmp_path, name):
    (group,) = read(tmp_path, READERS[name], **({"format": FORMATS[name]} if name in FORMATS else {}))
    assert group.prompt.content == OPEN
    assert group.completions[0].content == (A(" four."),)
    expected = ("<|im_start|>user\nTwo plus two?<|im_end|>\n<|im_start|>assistant\nThe answer is", " four.<|im_end|>")
    assert learned(PLAIN, group)[:1] == [expected]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": BEGUN},
        {"context_messages": BEGUN},
        {"messages": [BEGUN[0], {**BEGUN[1], "prefix": True}]},
        {"context_messages": BEGUN, "label": "four"},
    ],
    ids=["prompt", "context_messages", "prefix", "reference"],
)
def test_a_bare_prompt_that_ends_with_the_assistant_is_continued(tmp_path, row):
    (group,) = read(tmp_path, row, **({"format": "open messages"} if "messages" in row else {}))
    assert group.prompt.content == OPEN
    prompt = Renderer(tokenizer(PLAIN)).prompt_text(group.prompt)
    assert prompt == "<|im_start|>user\nTwo plus two?<|im_end|>\n<|im_start|>assistant\nThe answer is"


def test_a_begun_turn_keeps_its_last_blank_and_is_no_open_block():
    begun = (U("q"), Message("assistant", "So, ", prefill=True))
    trimming = PLAIN.replace("m.content", "m.content | trim")
    assert Renderer(tokenizer(trimming)).prompt_text(Prompt(content=begun)).endswith("<|im_start|>assistant\nSo, ")
    assert Renderer(tokenizer(OPENS)).prompt_text(Prompt(content=begun)) == "<s>User: q\nAssistant: So, "
    assert Renderer(tokenizer(REWRITES)).prompt_text(Prompt(content=begun)).endswith("<think>\n\n</think>\n\nSo, ")


def test_a_begun_turn_that_the_template_changes_is_refused():
    begun = Prompt(content=(U("q"), Message("assistant", "so", prefill=True)))
    changing = PLAIN.replace("m.content", "m.content.replace('so', 'SO')")
    with pytest.raises(UserError, match="does not write the begun turn as it is"):
        Renderer(tokenizer(changing)).prompt_text(begun)


def test_two_turns_of_the_assistant_in_one_list_are_two_turns(tmp_path):
    """Only a prompt of its own can be begun; a conversation that has two answers in a row is told so."""
    messages = [*BEGUN, FOUR[0]]
    (group,) = read(tmp_path, {"messages": messages})
    assert group.prompt.content == (U("Two plus two?"), A("The answer is"))
    assert learned(PLAIN, group)[0][0].endswith("The answer is<|im_end|>\n<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("row", "field", "what"),
    [
        ({"prompt": BEGUN, "completion": [{**FOUR[0], "reasoning_content": "hm"}]}, "completion", "thoughts inside of a turn"),
        ({"prompt": BEGUN, "completion": [{**FOUR[0], "weight": 0}]}, "completion", "has weight 0"),
        ({"prompt": BEGUN, "chosen": FOUR, "rejected": [{**FIVE[0], "train": False}]}, "rejected", "has weight 0"),
        (
            {"prompt": BEGUN, "completions": [FOUR, [{**FIVE[0], "weight": 0}]], "scores": [1, 0]},
            "completions[1]",
            "has weight 0",
        ),
        ({"prompt": BEGUN, "completion": [{**FOUR[0], "prefix": True}]}, "completion", "marked as begun"),
        ({"prompt": [{**BEGUN[1], "prefix": True}, BEGUN[0]], "completion": FOUR}, "prompt", "marked as begun"),
        ({"prompt": [BEGUN[0], {**BEGUN[1], "tool_calls": [{"name": "f"}]}]}, "prompt", "a tool call that no tool answers"),
    ],
)
def test_what_no_group_may_hold(tmp_path, row, field, what):
    with pytest.raises(UserError) as error:
        read(tmp_path, row)
    assert error.value.where == f"rows.jsonl:1, field '{field}'"
    assert what in error.value.what


# answers that repeat their prompts --------------------------------------------------------------------------------------

ECHO = "Q{i}: one?"
REPEATS = [
    (lambda q: {"prompt": q, "completion": f"{q} A"}, {"column": "completion"}),
    (lambda q: {"prompt": f"{q} ", "completion": f"{q} A"}, {"column": "completion"}),
    (lambda q: {"prompt": q, "completion": f"{q} A", "label": 1}, {"column": "completion"}),
    (lambda q: {"prompt": q, "completions": [f"{q} A", f"{q} B"], "scores": [1, 0]}, {"column": "completions"}),
    (lambda q: {"question": q, "answer": f"{q} A"}, {"column": "answer", "prefix": "question"}),
    (lambda q: {"instruction": q, "output": f"{q} A"}, {"column": "output", "prefix": "instruction"}),
    (lambda q: {"prompt": q, "chosen": f"{q} A", "rejected": f"{q} B"}, None),
    (lambda q: {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": f"{q} A"}]}, None),
    (lambda q: {"prompt": [{"role": "user", "content": q}], "completion": [{"role": "assistant", "content": f"{q} A"}]}, None),
    (lambda q: {"prompt": [*BEGUN[:1], {"role": "assistant", "content": q}], "completion": f"{q} A"}, None),
]


@pytest.mark.parametrize(("made", "step"), REPEATS)
def test_answers_that_begin_with_their_prompt_are_refused_in_every_format(tmp_path, made, step):
    rows = [made(ECHO.format(i=i)) for i in range(6)]
    with pytest.raises(UserError, match="begin with the prompt in every row") as error:
        read(tmp_path, *rows)
    assert error.value.where == "rows.jsonl"
    with pytest.raises(UserError, match="begin with the prompt in every row"):
        GroupStream({"path": str(tmp_path / "rows.jsonl")})
    if step is None:
        return
    step = {"prefix": "prompt", **step}
    assert f"steps: [{{remove_prefix: {{column: {step['column']}, prefix: {step['prefix']}}}}}]" in error.value.fix
    cut = read(tmp_path, *rows, steps=[{"remove_prefix": step}])
    assert [c.text for c in cut[3].completions] == ([" A", " B"] if step["column"] == "completions" else [" A"])


def test_one_answer_that_begins_otherwise_or_one_row_alone_is_no_repetition(tmp_path):
    rows = [{"prompt": f"Q{i}", "completion": f"Q{i} A"} for i in range(5)]
    assert len(read(tmp_path, *rows, {"prompt": "Q", "completion": "A"})) == 6
    assert len(read(tmp_path, rows[0])) == 1


def test_a_text_that_lacks_the_prefix_is_a_bad_row(tmp_path):
    steps = [{"remove_prefix": {"column": "completion", "prefix": "prompt"}}]
    with pytest.raises(UserError, match=r"rows.jsonl:1, field 'completion': does not begin with the prompt: 'no'"):
        read(tmp_path, {"prompt": "q", "completion": "no"}, steps=steps)


# neighbouring turns -----------------------------------------------------------------------------------------------------

TWICE = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
NEIGHBOURS = [
    {"messages": [*TWICE, {"role": "assistant", "content": "c"}]},
    {"messages": [TWICE[0], {"role": "assistant", "content": "c"}, {"role": "assistant", "content": "d"}]},
    {"messages": TWICE},
    {"prompt": TWICE},
    {"prompt": TWICE, "completion": "c"},
    {"prompt": TWICE, "chosen": "c", "rejected": "d"},
    {"prompt": TWICE, "completion": "c", "label": False},
    {"prompt": TWICE, "completions": ["c", "d"], "ranks": [1, 2]},
    {"conversations": TWICE, "chosen": {"from": "gpt", "value": "c"}, "rejected": {"from": "gpt", "value": "d"}},
    {"instruction": "a", "history": [["x", "y"]], "system": "s", "output": "c"},
]


@pytest.mark.parametrize("row", NEIGHBOURS, ids=lambda row: "/".join(row))
def test_neighbouring_turns_of_one_role_are_said(tmp_path, row, caplog):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    said = load(str(path)).description
    line = "1 row has neighbouring turns of one role (first: rows.jsonl:1), kept as they are; clean: {turns: merge}"
    assert (line in said) == ("history" not in row)
    assert "neighbouring" not in load({"path": str(path), "clean": {"turns": "merge"}}).description
    list(GroupStream({"path": str(path)}))
    assert sum(line in r.message for r in caplog.records) == ("history" not in row)


def test_a_begun_turn_and_parallel_tools_are_no_neighbours(tmp_path):
    calls = {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}, {"name": "g"}]}
    tools = [{"role": "tool", "content": "1"}, {"role": "tool", "content": "2"}]
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": BEGUN, "completion": FOUR}) + "\n")
    assert "neighbouring" not in load(str(path)).description
    assert len(load({"path": str(path), "clean": {"turns": "drop"}})) == 1
    path.write_text(json.dumps({"messages": [BEGUN[0], calls, *tools, FOUR[0]]}) + "\n")
    assert "neighbouring" not in load(str(path)).description


def test_merged_turns_keep_what_is_more_than_text(tmp_path):
    second = {"role": "user", "content": "b"}
    thought = {"role": "assistant", "content": "c", "reasoning_content": "hm"}
    rows = [{"messages": [TWICE[0], second, thought]}, {"messages": [TWICE[0], FOUR[0], thought]}]
    (group,) = read(tmp_path, *rows, clean={"turns": "merge"})
    assert group.prompt.content == (U("a\n\nb"),)
    assert group.completions[0].content == (A("c", reasoning_content="hm"),)


# formats of others ------------------------------------------------------------------------------------------------------


def test_rated_generations_are_a_ranking(tmp_path):
    """distilabel's columns; ratings may be text, and null where the rating failed."""
    (group,) = read(tmp_path, {"instruction": "q", "generations": ["a", "b", "c"], "ratings": ["4", None, 5], "model_name": "m"})
    assert group.prompt.content == (U("q"),)
    assert [c.text for c in group.completions] == ["a", "b", "c"]
    assert [s if s == s else None for s in group.scores] == [4.0, None, 5.0]


def test_generations_beside_a_chosen_answer_are_a_pair(tmp_path):
    row = {"prompt": "q", "generations": ["a", "b"], "ratings": [4, 2], "chosen": "a", "rejected": "b", "model_name": "m"}
    (group,) = read(tmp_path, row)
    assert ([c.text for c in group.completions], group.scores) == (["a", "b"], (1.0, 0.0))
    row["instruction"] = row.pop("prompt")
    assert len(read(tmp_path, row)[0].completions) == 2


@pytest.mark.parametrize("name", ["input", "context_messages"])
def test_prompts_with_a_reference_answer(tmp_path, name):
    asked = "6 x 12?" if name == "input" else [{"role": "user", "content": "6 x 12?"}]
    (group,) = read(tmp_path, {name: asked, "label": "72", "source": "s"})
    assert (group.prompt.content, group.completions) == ((U("6 x 12?"),), ())
    assert group.prompt.meta == {"answer": "72", "source": "s"}


def test_input_output_and_label_stay_binary_feedback(tmp_path):
    (group,) = read(tmp_path, {"input": "q", "output": "a", "label": True})
    assert group.scores == (1.0,)


@pytest.mark.parametrize(("label", "score"), [(-1, 0.0), (1, 1.0), ("-1", 0.0), ("+1", 1.0), (-1.0, 0.0)])
def test_labels_of_minus_one_and_one(tmp_path, label, score):
    (group,) = read(tmp_path, {"prompt": "q", "completion": "a", "label": label})
    assert group.scores == (score,)


def test_labels_of_minus_one_and_zero_contradict_each_other(tmp_path):
    rows = [{"prompt": f"q{i}", "completion": "a", "label": label} for i, label in enumerate((1, -1, 0))]
    with pytest.raises(UserError, match=r"labels are -1 \(rows.jsonl:2\) as well as 0 \(rows.jsonl:3\)"):
        read(tmp_path, *rows, on_bad_row="skip")
    kept = read(tmp_path, *rows, steps=[{"keep": {"column": "label", "is_not": 0}}])
    assert [g.scores for g in kept] == [(1.0,), (0.0,)]


def test_margins_of_the_data_are_margins_of_the_reward_model(tmp_path):
    """TRL: -log sigmoid(chosen - rejected - margin); 0 is a margin too, and no rating gap takes its place."""
    import torch

    from evenhand.objectives.reward_model import BradleyTerry
    from evenhand.train.examples import Example, assemble, with_pairs
    from evenhand.types import ModelOut

    rows = [{"prompt": "q", "chosen": "a", "rejected": "b", "margin": m} for m in (3.0, 0, None)]
    groups = read(tmp_path, *rows)
    assert [g.parts for g in groups] == [{"margin": (3.0, 3.0)}, {"margin": (0.0, 0.0)}, {}]
    renderer = Renderer(tokenizer(""))
    items = [with_pairs(Example(tokens=renderer.tokenise(g, max_prompt=None, max_completion=None))) for g in groups]
    batch = assemble(items)
    terms = BradleyTerry()(ModelOut(score=torch.tensor([1.0, 0.5] * 3)), batch)
    expected = [torch.nn.functional.softplus(torch.tensor(-(0.5 - m))).item() for m in (3.0, 0.0, 0.0)]
    assert terms.terms[0].value.tolist() == pytest.approx(expected)
    assert assemble(items[2:]).pair_margin is None
