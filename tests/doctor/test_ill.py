"""Broken inputs, each caught by the check that is meant to catch it, in words that name the fault.

A case changes one thing of a healthy experiment. The tables below hold files, rows, tokenizers, templates, models, rewards,
judges and settings; what cannot even be planned is refused by `prepare`, and broken models by the loader.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from evenhand.doctor import Severity
from evenhand.errors import UserError
from evenhand.run_experiment import prepare
from tests.doctor.patients import SPECIAL, TEMPLATE, Ward, byte_tokenizer, demonstrations, pairs, sentence

CASES: dict[str, tuple[Callable[[Ward], None], str, str, Severity]] = {}


def case(id: str, words: str, severity: Severity = Severity.FAIL):
    def register(break_it: Callable[[Ward], None]) -> Callable[[Ward], None]:
        CASES[break_it.__name__] = (break_it, id, words, severity)
        return break_it

    return register


@pytest.mark.parametrize("name", CASES)
def test_it_is_caught(name: str, tmp_path: Path) -> None:
    break_it, id, words, severity = CASES[name]
    ward = Ward(tmp_path)
    break_it(ward)
    result = ward.examine()[id]
    found = [(f.severity, f.seen) for f in result.findings if words in f.seen]
    assert found, f"{id} says {[f.seen for f in result.findings]} ({result.skipped})"
    assert severity in {s for s, _ in found}
    told = next(f for f in result.findings if words in f.seen)
    assert told.why or result.check.why
    assert told.fix or result.check.fix


# ---- files that cannot be read ---------------------------------------------------------------------------------------


@case("D1", "no such file")
def a_missing_file(ward: Ward) -> None:
    ward.experiment["data"]["preferences"] = str(ward.folder / "pears.jsonl")


@case("D1", "pairs.jsonl")
def a_line_that_is_not_json(ward: Ward) -> None:
    ward.text = "\n".join(map(json.dumps, ward.rows[:10])) + '\n{"prompt": "cut off in the mid'


@case("D1", "no usable rows")
def an_empty_file(ward: Ward) -> None:
    ward.text = ""


@case("D1", "no known format")
def columns_nobody_knows(ward: Ward) -> None:
    ward.rows = [{"frage": "a", "gut": "b", "schlecht": "c"} for _ in range(8)]


@case("D1", "pairs.jsonl:4, field 'rejected'")
def a_row_without_its_rejected_answer(ward: Ward) -> None:
    del ward.rows[3]["rejected"]


@case("D1", "pairs.jsonl:2, field 'chosen'")
def a_number_where_an_answer_belongs(ward: Ward) -> None:
    ward.rows[1]["chosen"] = 7


@case("D1", "narrator")
def a_role_nobody_knows(ward: Ward) -> None:
    ward.rows[2]["prompt"][0]["role"] = "narrator"


@case("D1", "is empty")
def an_empty_text_prompt(ward: Ward) -> None:
    ward.rows = [{"prompt": f"q{i}", "chosen": " yes", "rejected": " no"} for i in range(20)]
    ward.rows[5]["prompt"] = "  "


@case("D1", "no column 'frage'")
def a_renamed_column_that_is_not_there(ward: Ward) -> None:
    ward.experiment["data"]["preferences"] = {"path": str(ward.folder / "pairs.jsonl"), "columns": {"prompt": "frage"}}


@case("D1", "sft learns from `demonstrations`")
def a_stage_without_its_split(ward: Ward) -> None:
    ward.experiment["sft"] = {"train": {"steps": 2}}


@case("D1", "learns from `preferences`")
def pairs_wanted_prompts_given(ward: Ward) -> None:
    ward.experiment["data"] = {"prompts": str(ward.folder / "pairs.jsonl")}
    ward.rows = [{"prompt": row["prompt"]} for row in ward.rows]


@case("D1", "grade")
def a_grade_that_is_no_number(ward: Ward) -> None:
    ward.rows = [{**r, "chosen_score": "grade A", "rejected_score": 1} for r in ward.rows]


@case("D1", "utf-8")
def bytes_of_another_encoding(ward: Ward) -> None:
    data = json.dumps({"prompt": "café", "chosen": "é", "rejected": "e"}, ensure_ascii=False).encode("latin-1")
    ward.after.append(lambda folder: (folder.parent / "latin.jsonl").write_bytes(data))
    ward.experiment["data"]["preferences"] = str(ward.folder / "latin.jsonl")


# ---- rows that are wrong, and load -----------------------------------------------------------------------------------


def _canonical(ward: Ward) -> list[dict]:
    """The rows in the form that evenhand itself writes, which may hold anything."""
    ward.rows = [
        {"prompt": r["prompt"][0]["content"], "id": f"{i:016x}", "meta": {}, "parts": {}, "scores": [1, 0],
         "completions": [{"content": r[side][0]["content"]} for side in ("chosen", "rejected")]}
        for i, r in enumerate(ward.rows)
    ]  # fmt: skip
    return ward.rows


@case("D2", "worse answer", Severity.WARN)
def an_empty_rejected_answer(ward: Ward) -> None:
    _canonical(ward)[4]["completions"][1]["content"] = ""


@case("D2", "best answers")
def empty_chosen_answers(ward: Ward) -> None:
    for row in _canonical(ward)[:9]:
        row["completions"][0]["content"] = " "


@case("D2", "prompts of preferences are empty")
def an_empty_question(ward: Ward) -> None:
    for row in _canonical(ward)[:30]:
        row["prompt"] = " "


@case("D1", "is empty")
def an_empty_chosen_turn(ward: Ward) -> None:
    ward.rows[4]["chosen"][0]["content"] = ""


@case("D3", "two equal answers", Severity.WARN)
def a_pair_of_equal_answers(ward: Ward) -> None:
    for row in ward.rows[:8]:
        row["rejected"] = row["chosen"]


@case("D3", "two equal answers")
def mostly_pairs_of_equal_answers(ward: Ward) -> None:
    for row in ward.rows[:60]:
        row["rejected"] = row["chosen"]


@case("D3", "equal once cut to 16 tokens")
def answers_that_differ_only_at_their_end(ward: Ward) -> None:
    ward.experiment["lengths"]["completion"] = 16
    for row in ward.rows:
        row["rejected"][0]["content"] = row["chosen"][0]["content"] + " indeed"


@case("D4", "answers of preferences are cut at 20 tokens", Severity.WARN)
def a_limit_below_the_answers(ward: Ward) -> None:
    ward.experiment["lengths"]["completion"] = 20


@case("D4", "lose their beginning", Severity.WARN)
def a_limit_below_the_prompts(ward: Ward) -> None:
    ward.experiment["lengths"]["prompt"] = 30


@case("D4", "cannot be learned from")
def answers_with_a_stop_token_inside(ward: Ward) -> None:
    for row in ward.rows[::3]:
        row["chosen"][0]["content"] = "good so far</s> and on it goes"


@case("D5", "`pick the longer` is right in 100.0%", Severity.WARN)
def the_longer_is_always_chosen(ward: Ward) -> None:
    for row in ward.rows:
        row["chosen"][0]["content"] += " and so on and on"
        row["rejected"][0]["content"] = "poor"


@case("D6", "repeat an earlier one")
def every_row_many_times(ward: Ward) -> None:
    ward.rows = ward.rows[:10] * 8


@case("D6", "repeat an earlier one", Severity.WARN)
def some_rows_twice(ward: Ward) -> None:
    ward.rows += ward.rows[:20]


@case("D7", "labels are desirable")
def binary_labels_of_one_kind(ward: Ward) -> None:
    ward.experiment["arms"] = {"base": {"method": "start"}, "kto": {"method": "kto"}}
    ward.rows = [{"prompt": r["prompt"], "completion": r["chosen"], "label": True} for r in ward.rows]


@case("D7", "weigh", Severity.WARN)
def few_undesirable_answers(ward: Ward) -> None:
    ward.experiment["arms"] = {"base": {"method": "start"}, "kto": {"method": "kto"}}
    ward.rows = [{"prompt": r["prompt"], "completion": r["chosen"], "label": i % 10 != 0} for i, r in enumerate(ward.rows)]


@case("D8", "preferred both ways")
def every_pair_both_ways(ward: Ward) -> None:
    ward.rows = ward.rows[:40] + [{**r, "chosen": r["rejected"], "rejected": r["chosen"]} for r in ward.rows[:40]]


@case("D1", "2 is not above the rejected answer's 4")
def ratings_against_the_labels(ward: Ward) -> None:
    ward.rows = [{**r, "chosen_score": 2.0, "rejected_score": 4.0} for r in ward.rows]


@case("D10", "begins with its whole prompt")
def answers_that_hold_their_prompt(ward: Ward) -> None:
    for row in ward.rows[1:]:  # a file where every row does is refused when it is read
        for side in ("chosen", "rejected"):
            row[side][0]["content"] = row["prompt"][0]["content"] + " " + row[side][0]["content"]


@case("D11", "the prompt ends with an answer")
def prompts_that_hold_their_answer(ward: Ward) -> None:
    for row in ward.rows:
        row["prompt"][0]["content"] += " Answer: " + row["chosen"][0]["content"]


@case("D12", "template marks")
def turns_that_were_rendered_before(ward: Ward) -> None:
    for row in ward.rows:
        row["prompt"][0]["content"] = f"<|im_start|>user\n{row['prompt'][0]['content']}<|im_end|>"


@case("D12", "[INST]")
def llama_marks_in_the_answers(ward: Ward) -> None:
    for row in ward.rows:
        row["prompt"][0]["content"] = f"[INST] {row['prompt'][0]['content']} [/INST]"


@case("D13", "mangled")
def utf8_read_as_latin1(ward: Ward) -> None:
    for row in ward.rows:
        row["chosen"][0]["content"] = "good café, déjà vu ".encode().decode("latin-1") + row["chosen"][0]["content"]


@case("D13", "mangled")
def characters_lost_for_good(ward: Ward) -> None:
    for row in ward.rows:
        row["chosen"][0]["content"] += " caf\ufffd"


@case("D14", "one and the same")
def one_refusal_for_everything(ward: Ward) -> None:
    for row in ward.rows:
        row["chosen"][0]["content"] = "I am sorry, but I cannot help with that."


@case("D15", "a step takes 500 prompts", Severity.WARN)
def a_step_larger_than_the_data(ward: Ward) -> None:
    ward.experiment["train"]["prompts_per_step"] = 500


@case("D15", "every row is seen", Severity.WARN)
def the_same_rows_a_hundred_times(ward: Ward) -> None:
    ward.experiment["train"]["steps"] = 1000


@case("D16", "a win rate is known to about", Severity.WARN)
def a_handful_of_held_out_prompts(ward: Ward) -> None:
    ward.experiment["evaluation"]["prompts"] = 5


@case("D16", "no held-out prompts")
def nothing_held_out(ward: Ward) -> None:
    ward.experiment["data"]["holdout"] = 1e-6


@case("D17", "prompts of heldout_prompts are also in preferences")
def the_training_prompts_as_evaluation(ward: Ward) -> None:
    ward.experiment["data"]["heldout_prompts"] = {"path": str(ward.folder / "pairs.jsonl"), "use": "prompts"}


@case("D18", "13 words in a row", Severity.WARN)
def evaluation_questions_quoted_in_training(ward: Ward) -> None:
    import random

    long = [sentence(random.Random(i), 20) for i in range(40)]
    questions = [{"prompt": [{"role": "user", "content": q}]} for q in long]
    path = ward.folder / "heldout.jsonl"
    ward.after.append(lambda _: path.write_text("".join(json.dumps(r) + "\n" for r in questions)) and None)
    ward.experiment["data"]["heldout_prompts"] = str(path)
    for row, question in zip(ward.rows, long * 2, strict=True):
        row["chosen"][0]["content"] = f"good: {question}"


@case("D19", "rank nothing")
def answers_with_one_score(ward: Ward) -> None:
    ward.rows = [{"prompt": f"q{i}", "completions": [" a", " b"], "scores": [3, 3]} for i in range(40)]


@case("D20", "one speaker twice in a row")
def two_questions_in_a_row(ward: Ward) -> None:
    for row in ward.rows:
        row["prompt"].append({"role": "user", "content": "Well?"})


@case("D20", "end with the assistant's turn")
def prompts_that_end_with_a_call_that_no_tool_answers(ward: Ward) -> None:
    """Words of the assistant at the end of a prompt are a turn begun for the answer; a call is a whole turn."""
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    for row in ward.rows:
        row["prompt"].append({"role": "assistant", "content": "Let me see.", "tool_calls": [call]})


@case("D21", "thinking block, the others none", Severity.WARN)
def only_the_chosen_think(ward: Ward) -> None:
    for row in ward.rows:
        row["chosen"][0]["content"] = "<think>hm</think>" + row["chosen"][0]["content"]


@case("D21", "never close it")
def thinking_without_an_end(ward: Ward) -> None:
    for row in ward.rows:
        for side in ("chosen", "rejected"):
            row[side][0]["content"] = "<think>" + row[side][0]["content"]


# ---- tokenizers and templates ----------------------------------------------------------------------------------------


@case("T2", "begin with two bos tokens")
def a_template_and_a_data_set_with_bos(ward: Ward) -> None:
    ward.tokenizer = byte_tokenizer("{{ bos_token }}" + TEMPLATE)


@case("T2", "bos token inside an answer")
def bos_before_every_answer(ward: Ward) -> None:
    for row in ward.rows:
        row["chosen"][0]["content"] = "<s>" + row["chosen"][0]["content"]


@case("T2", "lack the bos token", Severity.WARN)
def a_template_without_the_bos_of_plain_text(ward: Ward) -> None:
    from tokenizers import processors

    ward.tokenizer = byte_tokenizer(TEMPLATE.removeprefix("{{ bos_token }}"))
    ward.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])


@case("T3", "nothing else ends an answer")
def no_stop_token_at_all(ward: Ward) -> None:
    ward.rows = [{"prompt": f"q{i}", "chosen": f" yes {i}", "rejected": f" no {i}"} for i in range(80)]
    ward.tokenizer = byte_tokenizer(None, eos_token=None)


@case("T3", "not in the vocabulary")
def a_stop_id_that_does_not_exist(ward: Ward) -> None:
    def change(folder: Path) -> None:
        path = folder / "generation_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [2, 9999]}))

    ward.after.append(change)


@case("T3", "no token of its own", Severity.WARN)
def a_template_without_an_end_of_turn(ward: Ward) -> None:
    ward.tokenizer = byte_tokenizer(TEMPLATE.replace("<|end|>", "\\n"))


@case("T4", "no chat template")
def conversations_without_a_template(ward: Ward) -> None:
    ward.tokenizer = byte_tokenizer(None)


@case("T4", "refuses the turns")
def a_template_that_raises_on_system_turns(ward: Ward) -> None:
    refusal = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
    ward.tokenizer = byte_tokenizer(refusal + TEMPLATE)
    for row in ward.rows:
        row["prompt"].insert(0, {"role": "system", "content": "Be brief."})


@case("T4", "unknown chat template 'chatlm'")
def a_template_by_a_misspelt_name(ward: Ward) -> None:
    ward.tokenizer = byte_tokenizer(None)
    ward.experiment["model"]["template"] = "chatlm"


@case("T4", "has no token <|im_start|>")
def a_template_whose_marks_are_not_tokens(ward: Ward) -> None:
    ward.tokenizer = byte_tokenizer(None)
    ward.experiment["model"]["template"] = "chatml"


@case("T4", "has no effect", Severity.WARN)
def a_template_that_is_not_used(ward: Ward) -> None:
    ward.experiment["model"]["template"] = "tulu"


@case("T4", "no token of the conversation is the assistant's")
def generation_marks_around_nothing(ward: Ward) -> None:
    marked = TEMPLATE.replace(
        "{% generation %}{{ m.content + '<|end|>' }}", "{% generation %}{% endgeneration %}{{ m.content + '<|end|>' }}"
    )
    ward.tokenizer = byte_tokenizer(marked.replace("{% endgeneration %}{% else %}", "{% else %}"))
    ward.experiment["data"] = {"demonstrations": str(ward.folder / "pairs.jsonl"), "supervise": "assistant", "holdout": 0.5}
    ward.experiment["arms"] = {"base": {"method": "start"}, "more": {"method": "sft"}}
    ward.rows = [{"messages": row["messages"] * 2} for row in demonstrations()]


@case("T7", "leaves out what was said")
def a_template_that_drops_turns(ward: Ward) -> None:
    ward.tokenizer = byte_tokenizer(TEMPLATE.replace("for m in messages", "for m in messages[-1:]"))


@case("T7", "knows thinking", Severity.WARN)
def a_thinking_template(ward: Ward) -> None:
    ward.tokenizer = byte_tokenizer(TEMPLATE.replace("'<|assistant|>' }}{% endif", "'<|assistant|><think>' }}{% endif"))


@case("T8", "the model embeds 100")
def a_tokenizer_larger_than_the_model(ward: Ward) -> None:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": 100}))

    ward.rows = [{"prompt": f"{i}", "chosen": "!", "rejected": "#"} for i in range(80)]
    ward.after.append(change)


@case("T8", "the model's table ends at 99")
def tokens_beyond_the_embeddings(ward: Ward) -> None:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": 100}))

    ward.after.append(change)
    for row in ward.rows:
        row["chosen"][0]["content"] += " ÿÿ"


@case("T9", "are unknown")
def a_tokenizer_for_another_language(ward: Ward) -> None:
    from evenhand.worlds.tokenizer import word_tokenizer

    ward.tokenizer = word_tokenizer(["the quick brown fox"])


@case("T10", "do not survive")
def a_tokenizer_that_lowers_case(ward: Ward) -> None:
    from tokenizers import normalizers

    ward.tokenizer = byte_tokenizer(None)
    ward.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    ward.rows = [{"prompt": f"Q{i}", "chosen": f" Yes {i}", "rejected": f" No {i}"} for i in range(80)]


@case("T11", "exceed the model's context of 64")
def lengths_beyond_the_context(ward: Ward) -> None:
    ward.shape["max_position_embeddings"] = 64


@case("T14", "prompts are text, which the model reads verbatim", Severity.WARN)
def text_for_a_model_of_conversations(ward: Ward) -> None:
    for row in ward.rows:
        row["prompt"] = row["prompt"][0]["content"]
        row |= {key: row[key][0]["content"] for key in ("chosen", "rejected")}


@case("T12", "puts '<|assistant|>' before an answer")
def a_template_that_ignores_the_generation_prompt(ward: Ward) -> None:
    ward.tokenizer = byte_tokenizer(TEMPLATE.replace("add_generation_prompt", "false"))


@case("T13", "A and B are the same token")
def a_preference_model_that_knows_no_letters(ward: Ward) -> None:
    ward.experiment["data"] = {"world": "arithmetic", "sizes": {"demonstrations": 8, "preferences": 20, "prompts": 8}}
    ward.experiment["model"] = {"pretrain": {"documents": 20, "train": {"steps": 2}}}
    ward.experiment["reward_models"] = {"letters": {"method": "preference_model", "train": {"steps": 2}}}


# ---- models ----------------------------------------------------------------------------------------------------------


@case("M6", "no *.safetensors file")
def a_folder_without_weights(ward: Ward) -> None:
    ward.after.append(lambda folder: (folder / "model.safetensors").unlink())


@case("M6", "not a causal language model")
def a_classifier_as_the_policy(ward: Ward) -> None:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "architectures": ["LlamaForSequenceClassification"]}))

    ward.after.append(change)


@case("M6", "ZeroDivisionError")
def a_config_that_nothing_can_be_computed_from(ward: Ward) -> None:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "num_attention_heads": 0, "head_dim": None}))

    ward.after.append(change)


@case("T4", "no such folder")
def a_model_path_that_is_not_there(ward: Ward) -> None:
    ward.experiment["model"]["path"] = str(ward.folder / "modle")


@case("M3", "float16", Severity.WARN)
def half_precision_without_scaling(ward: Ward) -> None:
    ward.experiment["model"]["dtype"] = "float16"


@case("M3", "unknown dtype 'float61'")
def a_precision_that_does_not_exist(ward: Ward) -> None:
    ward.experiment["model"]["dtype"] = "float61"


# ---- rewards and judges ----------------------------------------------------------------------------------------------


def _reward(ward: Ward, name: str) -> None:
    ward.experiment["rewards"]["fair"]["path"] = f"{ward.folder / 'rewards.py'}:{name}"


@case("R1", "all 128 answers of the data score 0.25", Severity.WARN)
def a_constant_reward(ward: Ward) -> None:
    _reward(ward, "constant")


@case("R1", "none of 128 answers")
def a_reward_that_scores_nothing(ward: Ward) -> None:
    _reward(ward, "unscored")


@case("R1", "a reward must be finite, this one is inf")
def an_infinite_reward(ward: Ward) -> None:
    _reward(ward, "infinite")


@case("R1", "KeyError")
def a_reward_that_raises(ward: Ward) -> None:
    _reward(ward, "broken")


@case("R1", "answer")
def a_checker_without_its_field(ward: Ward) -> None:
    ward.experiment["rewards"]["fair"] = {"kind": "number", "field": "answer"}


@case("R2", "prefers the rejected answer")
def a_reward_with_its_sign_flipped(ward: Ward) -> None:
    _reward(ward, "flipped")


@case("R2", "empty answers", Severity.WARN)
def a_reward_that_likes_silence(ward: Ward) -> None:
    ward.experiment["data"] = {"demonstrations": str(ward.folder / "pairs.jsonl"), "holdout": 0.5}
    ward.experiment["arms"] = {"base": {"method": "start"}, "more": {"method": "sft"}}
    ward.rows = demonstrations()
    _reward(ward, "silent")


@case("R3", "correlation with the length", Severity.WARN)
def a_reward_for_words(ward: Ward) -> None:
    _reward(ward, "wordy")


@case("R3", "thanks behind an answer", Severity.WARN)
def a_reward_that_likes_thanks(ward: Ward) -> None:
    _reward(ward, "flattered")


@case("R3", "emoji behind an answer", Severity.WARN)
def a_reward_that_likes_emoji(ward: Ward) -> None:
    _reward(ward, "excited")


@case("R7", "which also judges", Severity.WARN)
def the_reward_model_as_judge(ward: Ward) -> None:
    ward.experiment["reward_models"] = {"rm": {"train": {"steps": 2}}}
    ward.experiment["arms"]["grpo"]["reward"] = "rm"
    ward.experiment["judge"] = {"reward": "rm"}


# ---- sampling and budget ---------------------------------------------------------------------------------------------


@case("G4", "arms.grpo samples with top-p 0.8", Severity.WARN)
def training_samples_from_a_nucleus(ward: Ward) -> None:
    ward.experiment["sampling"] = {"top_p": 0.8}


@case("G7", "samples 1")
def a_group_of_one(ward: Ward) -> None:
    ward.experiment["arms"]["grpo"]["completions_per_prompt"] = 1


@case("G7", "samples greedily")
def greedy_rollouts(ward: Ward) -> None:
    ward.experiment["sampling"] = {"temperature": 0.0}


@case("G8", "nothing in its loss knows who sampled", Severity.INFO)
def stale_samples_without_a_correction(ward: Ward) -> None:
    ward.experiment["arms"]["grpo"]["staleness"] = {"steps": 2}


@case("G8", "all of them are the start's", Severity.WARN)
def samples_that_never_grow_younger(ward: Ward) -> None:
    ward.experiment["train"]["steps"] = 9
    ward.experiment["arms"]["grpo"] |= {"staleness": {"steps": 8}, "importance": 2}


@case("B2", "are free")
def a_disk_too_small(ward: Ward) -> None:
    ward.experiment["seeds"] = list(range(4))
    ward.shape["vocab_size"] = len(SPECIAL) + 256
    ward.experiment["runtime"] = {"workers": 2}


@case("B5", "cannot be written to")
def a_store_that_is_a_file(ward: Ward) -> None:
    ward.after.append(lambda folder: (folder.parent / "store").write_text("") and None)
    ward.experiment["runtime"] = {"store": str(ward.folder / "store")}


@case("B7", "learns nothing, or ruins everything")
def a_learning_rate_of_zero(ward: Ward) -> None:
    ward.experiment["train"]["learning_rate"] = 0.0


@case("B7", "`warmup: 1` takes every step")
def a_warmup_without_end(ward: Ward) -> None:
    ward.experiment["train"]["warmup"] = 1.0


@case("B8", "with kl: 0", Severity.WARN)
def a_learned_reward_without_a_leash(ward: Ward) -> None:
    ward.experiment["reward_models"] = {"rm": {"train": {"steps": 2}}}
    ward.experiment["arms"]["grpo"] |= {"reward": "rm", "kl": 0.0}


@case("B8", "beta is 0")
def online_dpo_without_beta(ward: Ward) -> None:
    ward.experiment["arms"]["online"] = {"method": "online_dpo", "reward": "fair", "beta": 0.0}


@case("B9", "workers of 64 threads", Severity.WARN)
def more_threads_than_cores(ward: Ward) -> None:
    ward.experiment["runtime"] = {"workers": 64, "threads": 64}


@pytest.fixture(autouse=True)
def full_disk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk of a hundred bytes, for the case that is about it."""
    if "a_disk_too_small" in request.node.name:
        from types import SimpleNamespace

        monkeypatch.setattr("evenhand.doctor.budget.shutil.disk_usage", lambda path: SimpleNamespace(free=100))


# ---- settings that cannot be planned ---------------------------------------------------------------------------------

SETTINGS = {
    "an unknown section": ({"judges": {}}, "unknown key 'judges'"),
    "an unknown method": ({"arms": {"a": {"method": "dpoo"}}}, "unknown method 'dpoo'"),
    "an unknown parameter": ({"arms": {"a": {"method": "dpo", "bta": 0.1}}}, "unknown key 'bta'"),
    "text for a number": ({"train": {"steps": "ten"}}, '"ten" is not valid'),
    "no arms": ({"arms": {}}, "at least one arm"),
    "a baseline that is no arm": ({"baseline": "sftt"}, "no arm is called 'sftt'"),
    "seeds twice": ({"seeds": [0, 0]}, "seeds must be different"),
    "an arm that samples without a reward": ({"arms": {"a": {"method": "grpo"}}}, "needs a reward"),
    "a reward without effect": ({"arms": {"a": {"method": "dpo", "reward": "fair"}}}, "a reward has no effect"),
    "a judge nobody knows": ({"judge": {"reward": "vadre"}}, "unknown reward 'vadre'"),
    "gold without a world": ({"judge": {"reward": "gold"}}, "`gold` is the reward of a built-in world"),
    "steps and epochs": ({"train": {"steps": 2, "epochs": 1}}, "either `steps` or `epochs`"),
    "a start that is no stage": ({"arms": {"a": {"method": "dpo", "initial_policy": "sfft"}}}, "cannot start from 'sfft'"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_refused(name: str, tmp_path: Path) -> None:
    changes, words = SETTINGS[name]
    ward = Ward(tmp_path)
    ward.experiment |= changes
    path = ward.write()
    with pytest.raises(UserError) as caught:
        prepare(str(path), [], tmp_path / "out")
    assert words in str(caught.value)


# ---- reward models ---------------------------------------------------------------------------------------------------


def _config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


REWARD_MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    "two labels": (lambda f: _config(f, id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1}), "2 labels"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no *.safetensors"),
    "pickled weights": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pickled"),
    "a policy, without a score head": (lambda f: None, "score.weight"),
    "no config": (lambda f: [p.unlink() for p in f.glob("*.json")] and None, "no config.json"),
}


@pytest.mark.parametrize("name", REWARD_MODELS)
def test_broken_reward_models_are_refused(name: str, tmp_path: Path) -> None:
    from evenhand.models.load import load_reward_model, reward_model_from, save

    break_it, words = REWARD_MODELS[name]
    ward = Ward(tmp_path)
    ward.write()
    folder = tmp_path / "model"
    if "policy" in name:
        _config(folder, num_labels=1)
    else:
        model = reward_model_from(folder, seed=0, device="cpu")
        folder = tmp_path / "rm"
        save(model, ward.tokenizer, folder)
    break_it(folder)
    with pytest.raises(UserError) as caught:
        load_reward_model(folder, device="cpu")
    assert words in str(caught.value)


def test_the_corpus_is_large() -> None:
    assert len(CASES) + len(SETTINGS) + len(REWARD_MODELS) >= 100
    assert len(pairs()) == 80


# ---- labels of several kinds, environments -----------------------------------------------------------------------------


def _beside(ward: Ward, rows: list[dict], **model: object) -> None:
    """A reward model that learns from a file of its own."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    ward.after.append(lambda folder: (folder.parent / "labels.jsonl").write_text(text))
    ward.experiment["splits"] = {"labels": {"source": str(ward.folder / "labels.jsonl")}}
    ward.experiment["reward_models"] = {"rm": {"data": "labels", "train": {"steps": 2}, **model}}


def _asked(ward: Ward) -> list:
    return [row["prompt"] for row in ward.rows[:12]]


@case("D22", "no row has a rating of 'kind'")
def an_attribute_that_nobody_rates(ward: Ward) -> None:
    rows = [{"prompt": p, "completion": "good day", "ratings": {"good": n % 5}} for n, p in enumerate(_asked(ward))]
    _beside(ward, rows, method="attribute_reward_model", attributes={"kind": [0, 4], "good": [0, 4]})


@case("D22", "a row rates 'good' 4, which is not from 0 to 3")
def a_rating_off_its_scale(ward: Ward) -> None:
    rows = [{"prompt": p, "completion": "good day", "ratings": {"good": n % 5}} for n, p in enumerate(_asked(ward))]
    _beside(ward, rows, method="attribute_reward_model", attributes={"good": [0, 3]})


@case("D22", "2 steps are labelled where 3 are read")
def a_line_break_inside_a_step(ward: Ward) -> None:
    rows = [{"prompt": p, "steps": ["good\nday", "good night"], "labels": [1, n % 2]} for n, p in enumerate(_asked(ward))]
    _beside(ward, rows, method="process_reward_model")


@case("D22", "2 steps are labelled where 1 are read")
def steps_that_end_otherwise(ward: Ward) -> None:
    rows = [{"prompt": p, "steps": ["good day", "good night"], "labels": [1, n % 2]} for n, p in enumerate(_asked(ward))]
    _beside(ward, rows, method="process_reward_model", separator="\n\n")


GAME = """
from evenhand.environments import EnvironmentContext, environment
from evenhand.protocols import Reply

@environment("ward_game")
class Game:
    def __init__(self, context: EnvironmentContext, reads: str = "number"):
        self.reads = reads

    def reset(self, prompt):
        self.number = prompt.meta[self.reads] if self.reads else 0
        return prompt

    def step(self, action):
        return Reply(reward=float(len(action.text) > 3), done=True)
"""


@case("R9", "KeyError: 'number'")
def an_environment_that_misses_a_column(ward: Ward) -> None:
    (ward.folder / "game.py").write_text(GAME)
    ward.experiment |= {"plugins": ["game.py"], "environment": {"kind": "ward_game"}}
