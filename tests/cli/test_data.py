from __future__ import annotations

import json

import pytest

from evenhand.cli.data import noteworthy, numbered
from evenhand.types import Completion, Group, Prompt, TokenGroup, Tokens


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": "red", "chosen": " green blue", "rejected": " blue"},
        {"prompt": "red", "chosen": " white", "rejected": " white"},
        {"prompt": "blue", "chosen": " red", "rejected": " black white green"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_describe_says_the_format_and_what_is_noteworthy(cli, pairs):
    code, out, err = cli("data", "describe", pairs)
    assert code == 0, err
    assert "preference pairs" in out
    assert "3 rows, 2 different prompts" in out
    assert "the better answer is longer in 33.3%, equal to the worse in 1 of 3" in out
    assert "answers in words: median 1, 95% 3, 99% 3, longest 3" in out


def test_describe_counts_tokens_and_cuts(cli, models, pairs):
    code, out, err = cli("data", "describe", pairs, "--model", models / "rm", "--max-completion", 3)
    assert code == 0, err
    assert "completions cut: 1" in out, "only ` black white green` and its stop token are longer than 3"
    assert "answers in tokens: median 2, 95% 3" in out


def test_preview_shows_what_is_learned(cli, models, pairs):
    code, out, err = cli("data", "preview", pairs, "--model", models / "rm", "-n", 1)
    assert code == 0, err
    assert "score 1, 3 of 3 tokens learned" in out
    assert " green¦ blue¦<eos>¦" in out
    assert "stop tokens: '<|end|>' (6), '<eos>' (3)" in out
    assert "answer ids" not in out


def test_preview_shows_ids_with_those_not_learned_in_brackets(cli, models, pairs, tokenizer):
    code, out, err = cli("data", "preview", pairs, "--model", models / "rm", "-n", 1, "--ids")
    assert code == 0, err
    green, blue, eos = (tokenizer.convert_tokens_to_ids(t) for t in (" green", " blue", "<eos>"))
    assert f"answer ids: {green} {blue} {eos}" in out
    tokens = TokenGroup(
        prompt=(7,),
        completions=(Tokens(ids=(4, 5, 6), mask=(True, False, True)),),
        group=Group(prompt=Prompt(content="p"), completions=()),
    )
    assert list(numbered(tokens)) == ["prompt ids: 7", "answer ids: 4 (5) 6"]


def test_ties_rank_nothing():
    tied = Group(prompt=Prompt(content="p"), completions=(Completion(content="a"), Completion(content="")), scores=(1.0, 1.0))
    assert noteworthy([tied]) == ["1 rows, 1 different prompts", "1 answers are empty"]
