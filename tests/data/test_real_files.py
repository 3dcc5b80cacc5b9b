"""Real files of the kinds people have: each loads and is recognised for what it is. Skipped where they are absent."""

import pytest

from evenhand.data.load import load
from evenhand.errors import UserError

KNOWN = [
    # file, options, kind, groups, words of the stated line
    ("pref/dpo_en_demo.json", {}, "preference pairs", 300, "conversation explicit"),
    ("pref/kto_en_demo.json", {}, "binary feedback", 300, "fields: messages, label"),
    ("pref/open_instruct_preference_sample.jsonl", {}, "preference pairs", 100, "prompt explicit, conversations"),
    ("pref/hh_rlhf_harmless_2000.jsonl.gz", {"on_bad_row": "skip"}, "preference pairs", 1996, "4 bad rows skipped"),
    ("pref/tulu_13b_11_samples_scored.jsonl.gz", {}, "rankings", 403, "scored"),
    ("instruct/alpaca_en_demo.json", {}, "demonstrations", 999, "instruction, output, input"),
    ("instruct/alpaca_seed_tasks.jsonl", {}, "demonstrations", 175, "one group per instance"),
    ("instruct/self_instruct_user_oriented.jsonl", {}, "demonstrations", 252, "one group per instance"),
    ("instruct/gsm8k_train.jsonl", {}, "demonstrations", 7473, "question, answer"),
    ("instruct/gsm8k_test.jsonl", {}, "demonstrations", 1319, "question, answer"),
    ("instruct/mbpp.jsonl", {}, "demonstrations", 974, "text, code"),
    ("instruct/HumanEval.jsonl.gz", {}, "prompts", 164, "in meta: canonical_solution, entry_point"),
    ("instruct/ifeval_input_data.jsonl", {}, "prompts", 541, "in meta: instruction_id_list"),
    ("instruct/arena_hard_v2_question.jsonl", {}, "prompts", 750, "in meta: category"),
    ("instruct/alpaca_eval_prompts.json", {}, "prompts", 805, "instruction"),
    ("instruct/mt_bench_question.jsonl", {}, "prompts", 80, "first question of each"),
    ("text/tinystories_train.txt", {"opening_words": 4}, "demonstrations", None, "'<|endoftext|>'"),
    ("text/tinystories_v2.txt", {"opening_sentences": 1}, "demonstrations", None, "'<|endoftext|>'"),
    ("text/tinystories_val.txt", {"opening_words": 4, "use": "prompts"}, "prompts", None, "'blank line'"),
    (
        "text/rt-polarity.pos",
        {"format": "documents", "separator": "\n", "encoding": "latin-1"},
        "demonstrations",
        5331,
        "whole, empty prompt",
    ),
    (
        "text/rt-polarity.neg",
        {"format": "documents", "separator": "\n", "encoding": "latin-1"},
        "demonstrations",
        5331,
        "whole, empty prompt",
    ),
]


@pytest.mark.parametrize(("name", "options", "kind", "count", "line"), KNOWN, ids=[k[0] for k in KNOWN])
def test_real_file_is_recognised(real_data, name, options, kind, count, line):
    data = load({"path": str(real_data / "data" / name), **options})
    assert data.kind == kind
    assert len(data) == count if count else len(data) > 1000
    assert line in data.description
    assert all(g.prompt.content or kind == "demonstrations" for g in data.groups)


@pytest.mark.parametrize("name", ["mt_bench_judge_prompts.jsonl", "mt_bench_reference_gpt4.jsonl"])
def test_files_that_hold_no_training_data_are_refused(real_data, name):
    with pytest.raises(UserError, match="no known format"):
        load(str(real_data / "data" / "instruct" / name))


def test_real_transcripts_keep_every_word(real_data):
    """Turns joined again give the transcript, up to blanks at the ends of turns."""
    import gzip
    import json

    path = real_data / "data/pref/hh_rlhf_harmless_2000.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as file:
        rows = [json.loads(line) for line in file]
    rows = [r for r in rows if not any(r[s].rstrip().endswith("\n\nAssistant:") for s in ("chosen", "rejected"))]
    groups = load({"path": str(path), "on_bad_row": "skip"}).groups
    assert len(groups) == len(rows)
    mark = {"user": "Human:", "assistant": "Assistant:"}
    for row, group in zip(rows, groups, strict=True):
        for side, completion in zip(("chosen", "rejected"), group.completions, strict=True):
            told = " ".join(f"{mark[m.role]} {m.content}" for m in (*group.prompt.content, *completion.content))
            assert told.split() == row[side].split()


def test_gsm8k_answers_are_numbers(real_data):
    data = load(str(real_data / "data/instruct/gsm8k_train.jsonl"))
    assert [g.prompt.meta["answer"] for g in data.groups[:3]] == ["72", "10", "5"]
    assert all(g.prompt.meta["answer"].lstrip("-").replace(".", "").isdigit() for g in data.groups)
