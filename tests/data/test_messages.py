"""Nothing that a message says vanishes: it reaches the template, masks a turn, or the row is refused by file, line and key."""

import pytest

from evenhand.data.jsonl import group_from_json, group_to_json
from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.types import Completion, Group, Message, Prompt
from tests.data.templates_in_use import (
    MARKED,
    OPENS,
    PLAIN,
    REWRITES,
    TOOLS,
    A,
    T,
    U,
    learned,
    read,
    tokenizer,
)  # fmt: skip

CLOCK = {
    "type": "function",
    "function": {"name": "clock", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}},
}
CALL = {"id": "1", "type": "function", "function": {"name": "clock", "arguments": {"zone": "A"}}}
ASKED = {"role": "user", "content": "What time is it in A?"}
TOOL_ROW = {
    "tools": [CLOCK],
    "messages": [
        ASKED,
        {
            "role": "assistant",
            "content": "Let me look.",
            "tool_calls": [{"id": "1", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "A"}'}}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "12:00"},
        {"role": "assistant", "content": "Noon."},
    ],
}


def row(**answer):
    return {"messages": [{"role": "user", "content": "Two plus two?"}, {"role": "assistant", "content": "Four.", **answer}]}


# tools ------------------------------------------------------------------------------------------------------------------


def test_a_tool_call_beside_text_and_the_tools_reach_the_template(tmp_path):
    (group,) = read(tmp_path, TOOL_ROW)
    assert group.prompt.content == (
        U("What time is it in A?"), A("Let me look.", tool_calls=[CALL]), T("12:00", tool_call_id="1")
    )  # fmt: skip
    assert group.prompt.options == {"tools": [CLOCK]}
    ((prompt, answer),) = learned(TOOLS, group)
    assert prompt == (
        '<|im_start|>system\n{"type": "function", "function": {"name": "clock", "parameters": {"type": "object", '
        '"properties": {"zone": {"type": "string"}}}}}<|im_end|>\n'
        "<|im_start|>user\nWhat time is it in A?<|im_end|>\n"
        '<|im_start|>assistant\nLet me look.<call>clock {"zone": "A"}</call><|im_end|>\n'
        "<|im_start|>tool\n12:00<|im_end|>\n<|im_start|>assistant\n"
    )
    assert answer == "Noon.<|im_end|>"
    ((_, every_turn),) = learned(TOOLS, group, "assistant")
    assert every_turn == 'Let me look.<call>clock {"zone": "A"}</call><|im_end|>Noon.<|im_end|>'


@pytest.mark.parametrize(
    "turn",
    [
        {"content": None, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "clock", "arguments": "{}"}}]},
        {"content": "", "tool_calls": [{"id": "1", "name": "clock", "arguments": None}]},
        {"content": None, "function_call": {"name": "clock", "arguments": "{}"}, "tool_calls": None},
        {"content": [{"type": "tool_use", "id": "1", "name": "clock", "input": {}}]},
    ],
    ids=["", "flat", "legacy", "parts"],
)
def test_a_call_without_text_in_every_form_of_it(tmp_path, turn):
    messages = [
        ASKED,
        {"role": "assistant", **turn},
        {"role": "tool", "content": "12:00"},
        {"role": "assistant", "content": "Noon."},
    ]
    (group,) = read(tmp_path, {"messages": messages})
    call = group.prompt.content[1].extra["tool_calls"][0]
    assert call["function"] == {"name": "clock", "arguments": {}}
    ((prompt, answer),) = learned(TOOLS, group)
    assert "<|im_start|>assistant\n<call>clock {}</call><|im_end|>" in prompt
    assert answer == "Noon.<|im_end|>"


def test_a_shared_conversation_with_a_call_is_the_prompt_of_a_pair(tmp_path):
    called = {"role": "assistant", "content": None, "tool_calls": [{"name": "clock"}]}
    shared = [ASKED, called, {"role": "tool", "content": "12:00"}]
    sides = {
        side: [*shared, {"role": "assistant", "content": said}] for side, said in (("chosen", "Noon."), ("rejected", "One."))
    }
    (group,) = read(tmp_path, sides)
    assert [m.role for m in group.prompt.content] == ["user", "assistant", "tool"]
    assert [c.content for c in group.completions] == [(A("Noon."),), (A("One."),)]


def test_a_template_that_joins_arguments_as_text_gets_text(tmp_path):
    (group,) = read(tmp_path, TOOL_ROW)
    template = TOOLS.replace("c.function.arguments | tojson", "c.function.arguments")
    ((prompt, _),) = learned(template, group)
    assert '<call>clock {"zone": "A"}</call>' in prompt


@pytest.mark.parametrize(
    ("template", "what"), [(PLAIN, "no place for 'tools'"), (PLAIN.replace("{% for", "{{ tools }}{% for", 1), "'tool_calls'")]
)
def test_a_template_without_a_place_for_tools_or_calls_is_refused(tmp_path, template, what):
    (group,) = read(tmp_path, TOOL_ROW)
    with pytest.raises(UserError, match=what):
        learned(template, group)


@pytest.mark.parametrize("tools", [None, [], "", "[]", [{"type": "function", "function": {"name": "f"}}], '[{"name": "f"}]'])
def test_tools_as_objects_or_as_json_or_none(tmp_path, tools):
    (group,) = read(tmp_path, {**row(), "tools": tools})
    named = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    assert group.prompt.options == ({} if tools in (None, [], "", "[]") else named)


def test_template_arguments_of_a_row_reach_the_template_and_name_another_prompt(tmp_path):
    prompt = [{"role": "user", "content": "Two plus two?"}]
    plain, silent = read(
        tmp_path, {"prompt": prompt}, {"prompt": prompt, "chat_template_kwargs": {"enable_thinking": False, "x": None}}
    )
    renderer = Renderer(tokenizer(REWRITES))
    assert renderer.prompt_text(plain.prompt).endswith("<|im_start|>assistant\n")
    assert renderer.prompt_text(silent.prompt).endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert plain.prompt.id != silent.prompt.id
    assert silent.prompt.options == {"enable_thinking": False}


def test_tools_beside_verbatim_text(tmp_path):
    """Schemas are for a template, which verbatim text has not; a list of words under that name is data as any other."""
    (group,) = read(tmp_path, {"prompt": "Build a", "completion": " house.", "tools": ["hammer", "saw"]})
    assert group.prompt.meta["tools"] == ["hammer", "saw"]
    with pytest.raises(UserError, match=r"rows.jsonl:1, field 'tools': is for a chat template"):
        read(tmp_path, {"prompt": "Build a", "completion": " house.", "tools": [CLOCK]})


# thoughts ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_thoughts_under_a_key_of_their_own_are_learned_where_the_template_puts_them(tmp_path, key):
    (group,) = read(tmp_path, row(**{key: "add them up"}))
    assert learned(REWRITES, group)[0][1] == "<think>\nadd them up\n</think>\n\nFour.<|im_end|>"
    assert learned(OPENS, group)[0][1] == "add them up\n</think>\n\nFour.</s>"
    with pytest.raises(UserError, match=r"no place for thoughts \('reasoning_content'\)"):
        learned(PLAIN, group)


def test_thoughts_in_parts_of_the_content(tmp_path):
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "add them up"}]}, {"type": "text", "text": "Four."}]
    (group,) = read(tmp_path, row(content=parts))
    assert group.completions[0].content == (A("Four.", reasoning_content="add them up"),)


def test_a_pair_that_differs_in_its_thoughts_alone_is_a_pair(tmp_path):
    def side(thought):
        return [{"role": "assistant", "reasoning_content": thought, "content": "Four."}]

    rows = {"prompt": [ASKED], "chosen": side("add them"), "rejected": side("guess")}
    (group,) = read(tmp_path, rows, clean={"identical": "drop", "duplicates": "exact"})
    renderer = Renderer(tokenizer(REWRITES))
    done = renderer.tokenise(group, max_prompt=None, max_completion=None)
    assert renderer.decode(done.completions[0].ids) == "<think>\nadd them\n</think>\n\nFour."
    assert renderer.decode(done.completions[1].ids) == "<think>\nguess\n</think>\n\nFour."


def test_a_template_that_is_told_to_leave_the_thoughts_out_is_refused(tmp_path):
    (group,) = read(tmp_path, {**row(reasoning_content="add them up"), "chat_template_kwargs": {"short": True}})
    template = REWRITES.replace("{% set r = m.reasoning_content %}", "{% set r = '' if short else m.reasoning_content %}")
    with pytest.raises(UserError, match="leaves out the thoughts"):
        learned(template, group)


# weights ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [{"weight": 0}, {"train": False}, {"training": False}, {"loss": False}, {"weight": 0.0}])
def test_an_answer_of_weight_0_is_never_learned(tmp_path, key):
    with pytest.raises(UserError, match=r"rows.jsonl:1, field 'messages': every turn of the assistant has weight 0"):
        read(tmp_path, row(**key))
    assert len(read(tmp_path, row(**key), row(), on_bad_row="skip")) == 1


@pytest.mark.parametrize("marked", [False, True], ids=["", "marked"])
def test_weights_mask_turns(tmp_path, marked):
    template = MARKED if marked else PLAIN
    turns = [("user", "a", None), ("assistant", "b", 1), ("user", "c", 0), ("assistant", "d", 0), ("user", "e", None),
             ("assistant", "f", 1), ("user", "g", None), ("assistant", "h", 0)]  # fmt: skip
    messages = [{"role": r, "content": c, "weight": w} for r, c, w in turns]
    (group,) = read(tmp_path, {"messages": messages})
    assert [m.content for m in group.prompt.content] == ["a", "b", "c", "d", "e"], "what follows the last learned turn is cut"
    assert learned(template, group)[0][1].rstrip() == "f<|im_end|>"
    assert learned(template, group, "assistant")[0][1].replace("\n", "") == "b<|im_end|>f<|im_end|>"
    with pytest.raises(UserError, match="full would learn a turn of weight 0"):
        learned(template, group, "full")


@pytest.mark.parametrize(
    ("turn", "what"),
    [
        ({"weight": 0.5}, "message 2: expected 'weight' to be 0 or 1, found 0.5"),
        ({"weight": 1, "train": False}, "contradict each other"),
        (
            {"content": [{"type": "image_url", "image_url": {"url": "cat.png"}}]},
            "a part of the kind 'image_url' (str) is not text",
        ),
        ({"content": [{"type": "text", "text": "a", "image": "cat.png"}]}, "is not text"),
        ({"images": ["cat.png"]}, "'images' cannot be used"),
        ({"refusal": "no"}, "'refusal' cannot be used"),
        ({"thinking": "a", "reasoning_content": "b"}, "say different things"),
        ({"thinking": ["a"]}, "expected 'thinking' as text"),
        ({"tool_calls": "clock"}, "expected 'tool_calls' as a list"),
        ({"tool_calls": [{"id": "1"}]}, "tool call 1: expected a function"),
        ({"tool_calls": [{"name": "clock", "arguments": 3}]}, "expected arguments as an object"),
        ({"tool_calls": [{"name": "clock", "arguments": {"a": float("nan")}}]}, "cannot be written as JSON"),
        ({"name": 3}, "expected 'name' as text"),
    ],
)
def test_what_cannot_be_used_is_refused_by_file_line_and_key(tmp_path, turn, what):
    with pytest.raises(UserError) as error:
        read(tmp_path, row(**turn))
    assert error.value.where == "rows.jsonl:1, field 'messages'"
    assert what in error.value.what
    assert read(tmp_path, row(), row(**turn), on_bad_row="skip")[0].completions[0].content == (A("Four."),)


@pytest.mark.parametrize(
    "key", [{"reasoning_content": "hm"}, {"tool_calls": [CALL]}, {"weight": 1}, {"train": True}], ids=lambda k: next(iter(k))
)
def test_what_is_the_assistants_is_refused_in_turns_of_others(tmp_path, key):
    with pytest.raises(UserError, match=r"message 1: .* turn of the user"):
        read(tmp_path, {"messages": [{"role": "user", "content": "a", **key}, {"role": "assistant", "content": "b"}]})


def test_keys_that_say_nothing_are_accepted(tmp_path):
    """A table of many rows fills in every key that one of them has."""
    nothing = dict.fromkeys(
        ("tool_calls", "function_call", "tool_call_id", "name", "reasoning_content", "thinking", "weight", "train", "images",
         "refusal", "audio", "prefix")
    )  # fmt: skip
    nothing |= {"tool_calls": [], "thinking": " ", "prefix": False}
    extra = {"tools": None, "chat_template_kwargs": None, "images": [], "margin": None, "image": None}
    (group,) = read(tmp_path, {"messages": [{**nothing, **m} for m in row()["messages"]], **extra})
    assert (group.prompt.content, group.completions[0].content) == ((U("Two plus two?"),), (A("Four."),))
    assert group.prompt.options == {}


# columns ----------------------------------------------------------------------------------------------------------------


def test_images_beside_the_text_are_refused(tmp_path):
    image = {
        "images": ["cat.png"],
        "messages": [{"role": "user", "content": "<image>What?"}, {"role": "assistant", "content": "A cat."}],
    }
    with pytest.raises(UserError, match=r"rows.jsonl:1, field 'images': holds \['cat.png'\] \(list\), which a language model"):
        read(tmp_path, image)
    assert read(tmp_path, image, keep=[])[0].prompt.meta == {}, "`keep` without the column says that it is not wanted"


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"tools": ["clock"]}, "tool 1: expected a schema with a name"),
        ({"tools": "clock"}, "expected a list of tools as JSON"),
        ({"tools": {"name": "clock"}}, "expected a list of tools"),
        ({"chat_template_kwargs": [1]}, "expected an object"),
        ({"chat_template_kwargs": {"add_generation_prompt": True}}, "'add_generation_prompt' is not the row's to set"),
        ({"chat_template_kwargs": {"a b": True}}, "'a b' is not the row's to set"),
        ({"chat_template_kwargs": {"a": float("inf")}}, "is infinite"),
    ],
)
def test_columns_for_the_template_of_a_wrong_kind_are_bad_rows(tmp_path, given, what):
    with pytest.raises(UserError) as error:
        read(tmp_path, {**row(), **given})
    assert error.value.where == f"rows.jsonl:1, field '{next(iter(given))}'"
    assert what in error.value.what


def test_all_of_it_survives_the_canonical_form():
    turns = (
        U("a"),
        A("b", reasoning_content="hm", tool_calls=[CALL]),
        T("c", tool_call_id="1"),
        Message("assistant", "d", prefill=True),
    )
    group = Group(
        prompt=Prompt(content=turns, options={"tools": [CLOCK]}),
        completions=(Completion(content=(Message("assistant", "e", train=False), U("f"), A("g"))),),
    )
    assert group_from_json(group_to_json(group)) == group
    plain = Group(prompt=Prompt(content=(U("a"),)), completions=(Completion(content=(A("b"),)),))
    assert group_to_json(plain)["prompt"] == [{"role": "user", "content": "a"}]
    assert "options" not in group_to_json(plain)
