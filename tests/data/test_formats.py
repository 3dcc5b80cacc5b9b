"""Each format: a row as its source writes it, and the group it means, written by hand."""

import json
import math

import pytest

from evenhand.data.formats import FORMATS
from evenhand.data.load import load
from evenhand.errors import UserError
from evenhand.types import Message

U, A, S, T = (lambda text, role=role: Message(role, text) for role in ("user", "assistant", "system", "tool"))
HUMAN = "\n\nHuman: Hi there\n\nAssistant: Hello\n\nHuman: Who?\n\nAssistant:"

CASES = [
    # format, row, prompt, completions, scores (None = unscored), meta
    ("prompt/chosen/rejected", {"prompt": "q", "chosen": " a", "rejected": " b", "id": 7}, "q", [" a", " b"], [1, 0], {"id": 7}),
    (
        "prompt/chosen/rejected",
        {"prompt": [{"role": "user", "content": "q"}], "chosen": [{"role": "assistant", "content": "a"}], "rejected": "b"},
        (U("q"),),
        [(A("a"),), (A("b"),)],
        [1, 0],
        {},
    ),
    (
        "prompt/chosen/rejected",  # as UltraFeedback writes it: the prompt again as first turn of both
        {
            "prompt": "q",
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
            "score_chosen": 8.5,
            "score_rejected": 3,
        },
        (U("q"),),
        [(A("a"),), (A("b"),)],
        [8.5, 3],
        {},
    ),
    (
        "prompt/chosen/rejected",  # the conversation given twice: as the prompt, and at the start of both sides
        {
            "prompt": [{"role": "user", "content": "q"}],
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}],
        },
        (U("q"),),
        [(A("a"),), (A("b"),)],
        [1, 0],
        {},
    ),
    (
        "prompt/chosen/rejected",  # a transcript inside a text is no transcript
        {"prompt": "Go on:" + HUMAN, "chosen": " Me.", "rejected": " You."},
        "Go on:" + HUMAN,
        [" Me.", " You."],
        [1, 0],
        {},
    ),
    (
        "prompt/chosen/rejected",
        {"prompt": HUMAN, "chosen": "Me.", "rejected": "You."},
        (U("Hi there"), A("Hello"), U("Who?")),
        [(A("Me."),), (A("You."),)],
        [1, 0],
        {},
    ),
    (
        "chosen/rejected",
        {"chosen": HUMAN + " Me.", "rejected": HUMAN + "  You."},
        (U("Hi there"), A("Hello"), U("Who?")),
        [(A("Me."),), (A("You."),)],
        [1, 0],
        {},
    ),
    (
        "chosen/rejected",  # the sides part at the first answer; the rest of the dialogue belongs to it
        {"chosen": HUMAN + " Me.", "rejected": "\n\nHuman: Hi there\n\nAssistant: Go"},
        (U("Hi there"),),
        [(A("Hello"), U("Who?"), A("Me.")), (A("Go"),)],
        [1, 0],
        {},
    ),
    ("chosen/rejected", {"chosen": "Q: who? A: you", "rejected": "Q: who? A: yes"}, "Q: who? A:", [" you", " yes"], [1, 0], {}),
    (
        "chosen/rejected",
        {
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
        },
        (U("q"),),
        [(A("a"),), (A("b"),)],
        [1, 0],
        {},
    ),
    (
        "conversations/chosen/rejected",
        {
            "conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "a"},
            "rejected": {"from": "gpt", "value": "b"},
        },
        (S("s"), U("q")),
        [(A("a"),), (A("b"),)],
        [1, 0],
        {},
    ),
    (
        "question/chosen/rejected",
        {"system": "s", "question": "q", "chosen": "a", "rejected": "b", "chosen_rating": "4", "rejected_rating": 1.5},
        (S("s"), U("q")),
        [(A("a"),), (A("b"),)],
        [4, 1.5],
        {},
    ),
    (
        "instruction/chosen/rejected",
        {"instruction": "do", "input": "this", "chosen": "a", "rejected": "b"},
        (U("do\n\nthis"),),
        [(A("a"),), (A("b"),)],
        [1, 0],
        {},
    ),
    ("prompt/completions/scores", {"prompt": "q", "completions": ["a", "b", "c"], "scores": [0.5, None, 2]}, "q",
     ["a", "b", "c"], [0.5, None, 2], {}),
    ("prompt/completions/ranks", {"prompt": "q", "completions": ["a", "b", "c"], "ranks": [2, 1, 3]}, "q",
     ["a", "b", "c"], [1, 2, 0], {}),
    ("prompt/completions", {"prompt": "q", "completions": ["a", "b"]}, "q", ["a", "b"], [None, None], {}),
    ("prompt/completion", {"prompt": "q", "completion": "a", "topic": "t"}, "q", ["a"], [None], {"topic": "t"}),
    ("prompt/response", {"prompt": "q", "response": "a"}, "q", ["a"], [None], {}),
    ("prompt/completion/label", {"prompt": "q", "completion": "a", "label": False}, "q", ["a"], [0], {}),
    ("prompt/completion/label", {"prompt": "q", "completion": "a", "label": "True"}, "q", ["a"], [1], {}),
    (
        "messages",
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "source": "s"},
        (U("q"),),
        [(A("a"),)],
        [None],
        {"source": "s"},
    ),
    (
        "messages",  # content in parts, as newer chat interfaces write it
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": "a"}]},
        (U("q"),),
        [(A("a"),)],
        [None],
        {},
    ),
    (
        "messages/label",
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "label": True},
        (U("q"),),
        [(A("a"),)],
        [1],
        {},
    ),
    (
        "conversations/kto_tag",
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "kto_tag": False},
        (U("q"),),
        [(A("a"),)],
        [0],
        {},
    ),
    (
        "conversations",
        {
            "system": "s",
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "observation", "value": "o"},
                {"from": "gpt", "value": "a"},
            ],
        },
        (S("s"), U("q"), T("o")),
        [(A("a"),)],
        [None],
        {},
    ),
    ("alpaca", {"instruction": "do", "input": "", "output": "a"}, (U("do"),), [(A("a"),)], [None], {}),
    ("alpaca", {"instruction": "do", "input": "this", "output": "a"}, (U("do\n\nthis"),), [(A("a"),)], [None], {}),
    (
        "alpaca",
        {"system": "s", "history": [["x", "y"]], "instruction": "do", "output": "a"},
        (S("s"), U("x"), A("y"), U("do")),
        [(A("a"),)],
        [None],
        {},
    ),
    (
        "instruction/response",  # Dolly
        {"instruction": "do", "context": "this", "response": "a", "category": "c"},
        (U("do\n\nthis"),),
        [(A("a"),)],
        [None],
        {"category": "c"},
    ),
    ("question/answer", {"question": "2+2?", "answer": "It is\n#### 1,234"}, (U("2+2?"),), [(A("It is\n#### 1,234"),)], [None],
     {"answer": "1234"}),
    ("text/code", {"text": "write", "code": "x = 1", "test_list": ["t"]}, (U("write"),), [(A("x = 1"),)], [None],
     {"test_list": ["t"]}),
    ("text", {"text": "once"}, "", ["once"], [None], {}),
    ("prompt", {"prompt": "q", "answer_key": 4}, "q", [], [], {"answer_key": 4}),
    ("prompt", {"prompt": [{"role": "user", "content": "q"}]}, (U("q"),), [], [], {}),
    ("instruction", {"instruction": "do"}, (U("do"),), [], [], {}),
    ("turns", {"turns": ["q", "then"], "category": "c"}, (U("q"),), [], [], {"category": "c", "turns": ["q", "then"]}),
    ("open messages", {"messages": [{"role": "user", "content": "q"}]}, (U("q"),), [], [], {}),
    (
        "evenhand",
        {"prompt": "q", "id": "x", "meta": {"m": 1}, "completions": [{"content": "a"}], "scores": [None], "parts": {}},
        "q",
        ["a"],
        [None],
        {"m": 1},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "row", "prompt", "completions", "scores", "meta"), CASES)
def test_format_is_recognised_and_read(tmp_path, name, row, prompt, completions, scores, meta):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n")
    data = load(str(path))
    named = load({"path": str(path), "format": name})
    assert [repr(g) for g in named.groups] == [repr(g) for g in data.groups], "detection chose the format named in this case"
    assert data.kind == FORMATS[name].kind
    assert data.description.startswith(f"rows.jsonl: {FORMATS[name].kind}, ")
    group = data.groups[1]
    assert group.prompt.content == prompt
    assert [c.content for c in group.completions] == completions
    assert [None if math.isnan(s) else s for s in group.scores] == scores
    assert group.prompt.meta == meta


def test_the_line_that_states_the_format(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"question": "q", "good": "a", "rejected": "b", "id": 1}) + "\n")
    line = load({"path": str(path), "columns": {"prompt": "question", "chosen": "good"}}).description
    assert line == (
        "pairs.jsonl: preference pairs, prompt explicit, verbatim text, 1 rows, "
        "fields: prompt (from question), chosen (from good), rejected (in meta: id)"
    )


def test_columns_reach_into_objects(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"q": {"text": "hi"}, "a": {"best": "yes"}}) + "\n")
    data = load({"path": str(path), "columns": {"prompt": "q.text", "completion": "a.best"}})
    assert (data.groups[0].prompt.content, data.groups[0].completions[0].content) == ("hi", "yes")


def test_richer_format_wins_and_the_rest_is_stated(tmp_path):
    """As UltraFeedback binarised and UltraChat have it: prompt, messages and more in one row."""
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"prompt": "q", "prompt_id": "1", "messages": turns}) + "\n")
    data = load(str(path))
    assert data.kind == "demonstrations"
    assert "fields: messages (in meta: prompt, prompt_id)" in data.description


def test_style_and_wrap(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"prompt": "q", "completion": "a"}) + "\n")
    chat = load({"path": str(path), "style": "chat"}).groups[0]
    assert chat.prompt.content == (U("q"),)
    assert chat.completions[0].content == (A("a"),)
    wrapped = load({"path": str(path), "wrap": "Q: {prompt}\nA:"}).groups[0]
    assert wrapped.prompt.content == "Q: q\nA:"
    path.write_text(json.dumps({"instruction": "do", "output": "a"}) + "\n")
    verbatim = load({"path": str(path), "style": "verbatim", "wrap": "{prompt}\n"}).groups[0]
    assert (verbatim.prompt.content, verbatim.completions[0].content) == ("do\n", "a")


def test_transcripts_can_stay_text(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"chosen": HUMAN + " Me.", "rejected": HUMAN + " You."}) + "\n")
    group = load({"path": str(path), "transcripts": "verbatim"}).groups[0]
    assert group.prompt.content == HUMAN
    assert [c.content for c in group.completions] == [" Me.", " You."]


def test_kept_columns(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"prompt": "q", "a": 1, "b": 2}) + "\n")
    assert load({"path": str(path), "keep": ["b"]}).groups[0].prompt.meta == {"b": 2}


def test_prompt_id_depends_on_the_prompt_alone(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps({"prompt": "q", "a": 1}) + "\n" + json.dumps({"prompt": "q", "a": 2}) + "\n")
    first, second = load(str(path)).groups
    assert first.prompt.id == second.prompt.id


@pytest.mark.parametrize(
    ("row", "what", "fix"),
    [
        ({"a": "x"}, "no known format has the columns a", "columns: {prompt: question"),
        ({"promt": "x"}, "no known format has the columns promt", "did you mean 'prompt' by 'promt'"),
        ({"prompt": "q", "choosen": "a", "rejected": "b"}, "'choosen' looks like 'chosen'", "columns: {chosen: choosen}"),
        ({"prompt": "q", "chosen": "a"}, "column 'chosen' has no partner", "format: prompt"),
        (
            {"prompt": "q", "completion": "a", "question": "q", "answer": "a"},
            "more than one format: prompt/completion, question/answer",
            "format: prompt/completion",
        ),
        (
            {"prompt": "tell me", "chosen": "tell me a", "rejected": "tell me b"},
            "begin with the prompt in every row",
            "format: chosen/rejected",
        ),
    ],
)
def test_columns_that_decide_nothing_are_refused(tmp_path, row, what, fix):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(UserError) as error:
        load(str(path))
    assert what in error.value.what
    assert fix in error.value.fix
    assert error.value.where == "r.jsonl"
