import json

import pytest

from evenhand.data.chat_templates import TEMPLATES, with_template
from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.types import Completion, Finish, Group, Message, Prompt
from tests.data.tiny_tokenizers import character_tokenizer, ids_of

CHATML_UNMARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML = ("<|im_start|>", "<|im_end|>")


def chat(*turns: str) -> tuple[Message, ...]:
    """User and assistant in turn."""
    return tuple(Message("assistant" if i % 2 else "user", t) for i, t in enumerate(turns))


def group(prompt, *answers) -> Group:
    return Group(prompt=Prompt(content=prompt), completions=tuple(Completion(content=a) for a in answers))


def everything(renderer, g, **kwargs):
    return renderer.tokenise(g, **{"max_prompt": None, "max_completion": None, **kwargs})


# verbatim text ----------------------------------------------------------------------------------------------------------


def test_text_is_used_verbatim_and_stopped_once():
    tok = character_tokenizer()
    done = everything(Renderer(tok), group("hi", " you", "no"))
    assert done.prompt == ids_of(tok, "hi")
    assert [c.ids for c in done.completions] == [ids_of(tok, " you", "</s>"), ids_of(tok, "no", "</s>")]
    assert all(all(c.mask) and not c.truncated for c in done.completions)


@pytest.mark.parametrize("text", ["hi", "<s>hi"])
def test_bos_comes_exactly_once(text):
    tok = character_tokenizer(bos=True)
    assert Renderer(tok).prompt_ids(Prompt(content=text)) == ids_of(tok, "<s>", "hi")


def test_no_bos_where_the_tokenizer_adds_none():
    tok = character_tokenizer(bos=False)
    assert Renderer(tok).prompt_ids(Prompt(content="hi")) == ids_of(tok, "hi")


def test_text_that_spells_the_stop_token_is_not_stopped_twice():
    tok = character_tokenizer()
    done = everything(Renderer(tok), group("hi", "yes</s>"))
    assert done.completions[0].ids == ids_of(tok, "yes", "</s>")


def test_a_stop_token_inside_a_completion_is_refused():
    renderer = Renderer(character_tokenizer())
    with pytest.raises(UserError, match=r"a stop token \('</s>'\) before its end"):
        everything(renderer, group("hi", "yes</s>and no"))
    result = renderer.tokenise_all([group("hi", "yes</s>and no"), group("hi", "yes")], max_prompt=None, max_completion=None)
    assert [index for index, _ in result.dropped] == [0]
    assert len(result.groups) == 1


def test_merge_across_the_boundary_keeps_the_prompt_ids(caplog):
    tok = character_tokenizer()
    renderer = Renderer(tok)
    result = renderer.tokenise_all([group("xa", "bc"), group("ya", "b")], max_prompt=None, max_completion=None)
    assert result.groups[0].prompt == ids_of(tok, "x", "a"), "not the id of the merge 'ab'"
    assert result.groups[0].completions[0].ids == ids_of(tok, "b", "c", "</s>")
    assert result.counts["boundary_merged"] == 2
    assert len(caplog.records) == 1, "said once, not per row"


def test_prompt_ids_equal_the_prompt_of_tokenise():
    renderer = Renderer(character_tokenizer(bos=True), template="tulu")
    for content in ("some text", chat("hello", "yes", "and?")):
        g = group(content, "fine")
        assert renderer.prompt_ids(g.prompt) == everything(renderer, g).prompt


def test_an_empty_prompt_is_the_bos_token_or_an_error():
    tok = character_tokenizer(bos=True)
    assert everything(Renderer(tok), group("", "a b")).prompt == ids_of(tok, "<s>")
    with pytest.raises(UserError, match="no tokens"):
        everything(Renderer(character_tokenizer()), group("", "a b"))


# conversations ----------------------------------------------------------------------------------------------------------


def test_conversation_is_rendered_by_the_template_and_the_terminator_learned():
    tok = character_tokenizer(more=CHATML, chat_template=CHATML_UNMARKED)
    done = everything(Renderer(tok), group(chat("hi"), "yes"))
    assert done.prompt == ids_of(tok, "<|im_start|>", "user\nhi", "<|im_end|>", "\n", "<|im_start|>", "assistant\n")
    assert done.completions[0].ids == ids_of(tok, "yes", "<|im_end|>"), "the line break after the terminator is no one's"


def test_stop_ids_are_the_union_of_eos_generation_config_and_terminator(tmp_path):
    tok = character_tokenizer(more=(*CHATML, "<|end|>"), chat_template=CHATML_UNMARKED)
    end = ids_of(tok, "<|end|>")[0]
    tok.save_pretrained(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [end]}))
    from transformers import AutoTokenizer

    renderer = Renderer(AutoTokenizer.from_pretrained(tmp_path))
    assert renderer.stop_ids == {2, end, ids_of(tok, "<|im_end|>")[0]}
    assert renderer.stop_id == ids_of(tok, "<|im_end|>")[0]
    assert everything(renderer, group("text", "yes")).completions[0].ids[-1] == 2, "verbatim text ends with the eos"


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        (None, {"eos_token_id": [5, 6]}, {5, 6}),
        ({}, {"eos_token_id": 5}, {5}),
        ({"eos_token_id": None}, {"text_config": {"eos_token_id": [6]}}, {6}),
        ({"eos_token_id": 6}, {"eos_token_id": 5}, {6}),
        (None, {}, set()),
    ],
)
def test_stop_ids_of_the_config_where_no_generation_config_has_them(tmp_path, generation, config, expected):
    tok = character_tokenizer(more=(*CHATML, "<|end|>", "<|stop|>"), chat_template=CHATML_UNMARKED)
    tok.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    if generation is not None:
        (tmp_path / "generation_config.json").write_text(json.dumps(generation))
    from transformers import AutoTokenizer

    assert Renderer(AutoTokenizer.from_pretrained(tmp_path)).stop_ids == {2, 4, *expected}


@pytest.mark.parametrize("text", ['{"eos_token_id": "</s>"}', '{"eos_token_id": [true]}', "{"])
def test_a_config_with_stops_that_are_no_ids_is_refused(tmp_path, text):
    tok = character_tokenizer()
    tok.name_or_path = str(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"eos_token_id is|not valid JSON"):
        Renderer(tok)


def test_a_template_without_a_terminator_gets_the_eos():
    template = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    template += "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    tok = character_tokenizer(chat_template=template)
    done = everything(Renderer(tok), group(chat("hi"), "yes"))
    assert done.completions[0].ids == ids_of(tok, "yes", "</s>")


def test_pad_equal_to_eos_hides_nothing():
    tok = character_tokenizer()
    tok.pad_token = tok.eos_token
    renderer = Renderer(tok)
    done = everything(renderer, group("hi", "yes"))
    assert renderer.pad_id == 2
    assert done.completions[0].ids[-1] == 2
    assert done.completions[0].mask[-1]


def test_a_conversation_without_a_template_is_an_error_that_names_the_choices():
    with pytest.raises(UserError, match="no chat template") as error:
        everything(Renderer(character_tokenizer()), group(chat("hi"), "yes"))
    assert all(name in error.value.fix for name in TEMPLATES)


def test_a_template_that_refuses_roles_is_named():
    template = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    template += "{{ m.content }}{% endfor %}"
    renderer = Renderer(character_tokenizer(chat_template=template))
    with pytest.raises(UserError, match=r"system, user.*no system turns"):
        renderer.prompt_ids(Prompt(content=(Message("system", "be kind"), Message("user", "hi"))))


def test_a_template_that_changes_words_is_refused():
    """Where the answer ends cannot be seen: the first special token of the whole text would be taken for the terminator."""
    template = CHATML_UNMARKED.replace("m.content", "m.content | upper")
    with pytest.raises(UserError, match="does not write the assistant's words"):
        Renderer(character_tokenizer(more=CHATML, chat_template=template))


def test_an_answer_that_the_template_shortens_is_said_once(caplog):
    template = CHATML_UNMARKED.replace("m.content", "m.content.split('/think')[-1]")
    tok = character_tokenizer(more=CHATML, chat_template=template)
    renderer = Renderer(tok)
    everything(renderer, group(chat("hi"), "  yes\n", "y e s"))
    assert not caplog.records
    done = everything(renderer, group(chat("hi"), "so/thinkyes", "ab/thinkno"))
    assert done.completions[0].ids == ids_of(tok, "yes", "<|im_end|>")
    assert [r.message for r in caplog.records] == [
        f"the chat template changes what the assistant wrote (first: prompt {done.group.prompt.id}); it is learned so"
    ]


def test_words_of_others_that_the_template_leaves_out_are_said_once(caplog):
    template = CHATML_UNMARKED.replace("{% for m in messages %}", "{% for m in messages if m.role != 'system' %}")
    renderer = Renderer(character_tokenizer(more=CHATML, chat_template=template))
    everything(renderer, group(chat("hi"), "yes"))
    assert not caplog.records
    for _ in range(2):
        everything(renderer, group((Message("system", "be kind"), *chat("hi")), "yes"))
    assert [r.message.split(" (")[0] for r in caplog.records] == ["the chat template leaves out or changes what the system says"]


@pytest.mark.parametrize("marked", [False, True], ids=["", "marked"])
def test_todays_date_is_the_same_every_day(marked):
    template = CHATML_UNMARKED
    if marked:
        template = (
            "{% for m in messages %}<|im_start|>{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>"
            "{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
        )
    template = "{{ strftime_now('%d %b %Y') }}" + template
    tok = character_tokenizer(more=CHATML, chat_template=template)
    renderer = Renderer(tok)
    done = everything(renderer, group(chat("hi"), "yes"), supervise="assistant")
    assert tok.decode(done.prompt).startswith("26 Jul 2024")
    assert renderer.fingerprint == Renderer(tok).fingerprint


def test_a_generation_prompt_that_opens_a_block_has_it_closed_before_the_answer():
    """The shape of thinking templates: what is generated after is not a prefix of what is rendered with the answer."""
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
    )
    tok = character_tokenizer(more=CHATML, chat_template=template)
    done = everything(Renderer(tok), group(chat("hi"), "yes"))
    assert tok.decode(done.prompt).endswith("<think>\n")
    assert done.completions[0].ids == ids_of(tok, "\n</think>\n\nyes", "<|im_end|>")


def test_named_templates_end_an_answer_with_one_stop_token_and_a_prompt_that_is_a_prefix():
    for name in TEMPLATES:
        tok = character_tokenizer(bos=True, more=CHATML)
        renderer = Renderer(tok, template=name)
        done = everything(renderer, group(chat("hi", "yes", "why?"), "so"))
        ids = done.completions[0].ids
        assert [i in renderer.stop_ids for i in ids] == [False] * (len(ids) - 1) + [True], name
        assert done.prompt[0] == 1
        assert done.prompt.count(1) == 1, f"{name}: bos once"
        assert tok.chat_template is None, "the tokenizer that was handed in is left alone"
        without = Renderer(character_tokenizer(more=CHATML), template=name).prompt_ids(Prompt(content=chat("hi")))
        assert 1 not in without, "no bos where the tokenizer adds none to text"


def test_unknown_template_and_missing_tokens():
    with pytest.raises(UserError, match="unknown chat template 'chatlm'") as error:
        with_template(character_tokenizer(), "chatlm")
    assert "chatml" in error.value.fix
    with pytest.raises(UserError, match=r"no token <\|im_start\|>"):
        with_template(character_tokenizer(), "chatml")


# which tokens count -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [CHATML_UNMARKED, None], ids=["by prefix", "by generation marks"])
def test_only_the_assistant_is_learned_in_an_answer_of_several_turns(template):
    tok = character_tokenizer(more=CHATML, chat_template=template or "")
    renderer = Renderer(tok, template=None if template else "chatml")
    answer = (Message("assistant", "no"), Message("user", "why"), Message("assistant", "so"))
    done = everything(renderer, Group(prompt=Prompt(content=chat("hi")), completions=(Completion(content=answer),)))
    tokens = done.completions[0]
    learned = tuple(i for i, m in zip(tokens.ids, tokens.mask, strict=True) if m)
    assert learned == ids_of(tok, "no", "<|im_end|>", "so", "<|im_end|>")
    assert tokens.ids[-1] == ids_of(tok, "<|im_end|>")[0]


@pytest.mark.parametrize("template", [CHATML_UNMARKED, None], ids=["by prefix", "by generation marks"])
def test_supervise_assistant_learns_every_assistant_turn(template):
    tok = character_tokenizer(more=CHATML, chat_template=template or "")
    renderer = Renderer(tok, template=None if template else "chatml")
    done = everything(renderer, group(chat("hi", "no", "why"), "so"), supervise="assistant")
    tokens = done.completions[0]
    assert done.prompt == renderer.prompt_ids(Prompt(content=chat("hi")))
    learned = tuple(i for i, m in zip(tokens.ids, tokens.mask, strict=True) if m)
    assert learned == ids_of(tok, "no", "<|im_end|>", "so", "<|im_end|>")
    whole = everything(renderer, group(chat("hi", "no", "why"), "so"))
    assert done.prompt + tokens.ids == whole.prompt + whole.completions[0].ids, "same tokens, other split"


def test_turns_without_a_terminator_are_learned_whole():
    template = "{% for m in messages %}{{ '<' + m.role + '>' + m.content + '\n' }}{% endfor %}"
    template += "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
    tok = character_tokenizer(chat_template=template)
    tokens = everything(Renderer(tok), group(chat("hi", "no", "why"), "so"), supervise="assistant").completions[0]
    learned = tuple(i for i, m in zip(tokens.ids, tokens.mask, strict=True) if m)
    assert learned == ids_of(tok, "no", "so", "</s>")


def test_marks_that_leave_out_the_terminator_still_learn_it():
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{{ '<|im_end|>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    tok = character_tokenizer(more=CHATML, chat_template=template)
    tokens = everything(Renderer(tok), group(chat("hi", "no", "why"), "so"), supervise="assistant").completions[0]
    learned = tuple(i for i, m in zip(tokens.ids, tokens.mask, strict=True) if m)
    assert learned == ids_of(tok, "no", "<|im_end|>", "so", "<|im_end|>")


def test_marks_that_cover_nothing_are_an_error():
    template = CHATML_UNMARKED + "{% if false %}{% generation %}{% endgeneration %}{% endif %}"
    renderer = Renderer(character_tokenizer(more=CHATML, chat_template=template))
    with pytest.raises(UserError, match="no token of the conversation is the assistant's"):
        everything(renderer, group(chat("hi", "no", "why"), "so"), supervise="assistant")


def test_a_template_that_rewrites_earlier_turns_is_learned_answer_by_answer():
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}"
        "{% if loop.last or m.role == 'user' %}{{ m.content }}{% else %}{{ 'cut' }}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    tok = character_tokenizer(more=CHATML, chat_template=template)
    done = Renderer(tok).tokenise_all(
        [group(chat("hi", "no", "why"), "so")], max_prompt=None, max_completion=None, supervise="assistant"
    )
    assert [c.completions[0].ids for c in done.groups] == [ids_of(tok, "no", "<|im_end|>"), ids_of(tok, "so", "<|im_end|>")]
    assert "cut" in tok.decode(done.groups[1].prompt), "as the second answer is sampled"
    assert done.counts["conversations_split"] == 1
    with pytest.raises(UserError, match="becomes several groups"):
        everything(Renderer(tok), group(chat("hi", "no", "why"), "so"), supervise="assistant")


def test_supervise_full_learns_all_but_the_first_token():
    tok = character_tokenizer(bos=True)
    done = everything(Renderer(tok), group("hi", " yes"), supervise="full")
    assert done.prompt == ids_of(tok, "<s>")
    assert done.completions[0].ids == ids_of(tok, "hi yes", "</s>")
    assert all(done.completions[0].mask)


def test_unknown_supervise():
    with pytest.raises(UserError, match="completions") as error:
        everything(Renderer(character_tokenizer()), group("a", "b"), supervise="completions")
    assert "'completion'" in error.value.fix


# length -----------------------------------------------------------------------------------------------------------------


def test_truncation_keeps_the_end_of_the_prompt_and_the_start_of_the_completion():
    tok = character_tokenizer()
    result = Renderer(tok).tokenise_all([group("abcdef", "uvwxyz", "uv")], max_prompt=3, max_completion=4)
    done = result.groups[0]
    assert done.prompt == ids_of(tok, "def")
    assert [c.ids for c in done.completions] == [ids_of(tok, "uvwx"), ids_of(tok, "uv", "</s>")]
    assert [c.truncated for c in done.completions] == [True, False]
    assert (result.counts["prompts_cut"], result.counts["completions_cut"]) == (1, 1)


def test_a_completion_of_exactly_the_limit_keeps_its_stop_token():
    tok = character_tokenizer()
    tokens = everything(Renderer(tok), group("q", "xyz"), max_completion=4).completions[0]
    assert tokens.ids == ids_of(tok, "xyz", "</s>")
    assert not tokens.truncated


def test_pairs_that_become_identical_are_counted():
    pair = group("q", "same start, then this", "same start, then that")
    result = Renderer(character_tokenizer()).tokenise_all([pair], max_prompt=None, max_completion=10)
    assert result.counts["pairs_identical_after_cut"] == 1


def test_groups_without_a_supervised_token_are_dropped_and_counted():
    tok = character_tokenizer()
    empty = Group(prompt=Prompt(content="q"), completions=(Completion(content="", tokens=()),))
    result = Renderer(tok).tokenise_all([group("q", "a"), empty, group("q", "c")], max_prompt=None, max_completion=None)
    assert len(result.groups) == 2
    assert [index for index, _ in result.dropped] == [1]
    assert "no supervised token" in result.dropped[0][1]
    with pytest.raises(UserError, match="no supervised token"):
        everything(Renderer(tok), empty)


# sampled tokens ---------------------------------------------------------------------------------------------------------


def test_sampled_tokens_are_used_as_they_are():
    tok = character_tokenizer()
    sampled = Completion(content="not this text", tokens=(7, 8, 9), behaviour_logp=(-1.0, -2.0, -3.0), finish=Finish.LENGTH)
    done = everything(Renderer(tok), Group(prompt=Prompt(content="hi"), completions=(sampled,)))
    assert done.completions[0].ids == (7, 8, 9)
    assert done.completions[0].behaviour_logp == (-1.0, -2.0, -3.0)
    assert done.completions[0].truncated
    short = everything(Renderer(tok), Group(prompt=Prompt(content="hi"), completions=(sampled,)), max_completion=2)
    assert short.completions[0].ids == (7, 8)
    assert short.completions[0].behaviour_logp == (-1.0, -2.0)


def test_decode_stops_at_the_first_stop_token_and_drops_special_ones():
    tok = character_tokenizer(more=CHATML)
    ids = ids_of(tok, "<|im_start|>", " yes", "</s>", "no")
    assert Renderer(tok).decode(ids) == " yes"
    assert Renderer(tok).decode(()) == ""


# identity ---------------------------------------------------------------------------------------------------------------


def test_fingerprint_changes_with_vocabulary_template_and_options_only():
    base = Renderer(character_tokenizer(more=CHATML, chat_template=CHATML_UNMARKED)).fingerprint
    tok = character_tokenizer(more=CHATML, chat_template=CHATML_UNMARKED)
    renderer = Renderer(tok)
    tok("abc", truncation=True, max_length=1)  # leaves its mark inside the tokenizer, which must not count
    assert renderer.fingerprint == base
    assert Renderer(character_tokenizer(more=(*CHATML, "<x>"), chat_template=CHATML_UNMARKED)).fingerprint != base
    assert Renderer(character_tokenizer(more=CHATML, chat_template=CHATML_UNMARKED + " ")).fingerprint != base
    assert Renderer(tok, options={"enable_thinking": False}).fingerprint != base


def test_template_survives_saving_and_loading(tmp_path):
    from transformers import AutoTokenizer

    renderer = Renderer(character_tokenizer(bos=True), template="transcript")
    renderer.tokenizer.save_pretrained(tmp_path)
    again = Renderer(AutoTokenizer.from_pretrained(tmp_path))
    g = group(chat("hi", "no", "why"), "so")
    assert everything(again, g).prompt == everything(renderer, g).prompt
    assert everything(again, g).completions == everything(renderer, g).completions


# real tokenizers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stories260K", "babyllama-tok361", "tokenizer-gpt2"])
def test_real_tokenizers_round_trip_text(real_data, name):
    from transformers import AutoTokenizer

    tok = AutoTokenizer.from_pretrained(real_data / "models" / name)
    renderer = Renderer(tok)
    done = everything(renderer, group("Once upon a time", " there was a cat.\n\nIt slept.", "x"))
    assert [renderer.decode(c.ids) for c in done.completions] == [" there was a cat.\n\nIt slept.", "x"]
    whole = tok("Once upon a time there was a cat.\n\nIt slept.")["input_ids"]
    assert [*done.prompt, *done.completions[0].ids] == [*whole, tok.eos_token_id]
