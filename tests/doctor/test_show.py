"""Tokens as they are shown: every character of the text once, in its colour, and nothing that steers a terminal."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from evenhand.data.template import Renderer
from evenhand.doctor.examine import Result
from evenhand.doctor.registry import Check, info, warn
from evenhand.doctor.render import coloured, pieces, show, visible
from evenhand.models.load import load_tokenizer
from evenhand.types import Completion, Group, Message, Prompt
from tests.doctor.patients import byte_tokenizer

TEXT = "Héllo 👋 你好\n\tBye now"


@pytest.fixture(params=["bytes", "tokenizer-gpt2", "babyllama-tok361", "stories260K"])
def renderer(request: pytest.FixtureRequest) -> Renderer:
    if request.param == "bytes":
        return Renderer(byte_tokenizer())
    real_data = request.getfixturevalue("real_data")
    return Renderer(load_tokenizer(real_data / "models" / request.param))


def test_pieces_join_to_the_text_and_count_every_token(renderer: Renderer) -> None:
    ids = renderer._encoder.continuation(TEXT)
    found = list(pieces(ids, renderer))
    assert sum(count for _, count in found) == len(ids)
    assert "".join(piece for piece, _ in found) == visible(renderer.decode(ids))


def test_what_steers_a_terminal_is_made_visible() -> None:
    renderer = Renderer(byte_tokenizer())
    answer = Completion(content=(Message("assistant", "a\x1b[31mred\x07"),))
    group = Group(prompt=Prompt(content=(Message("user", "q\x1b]0;title\x07"),)), completions=(answer,))
    shown = "".join(t.plain for t in coloured(renderer.tokenise(group, max_prompt=None, max_completion=None), renderer))
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "␛¦[¦3¦1¦m¦r¦e¦d¦␇" in shown


def test_special_tokens_are_spelled_out_and_blanks_kept(real_data: Path) -> None:
    renderer = Renderer(load_tokenizer(real_data / "models" / "babyllama-tok361"))
    ids = (*renderer._encoder.continuation(" saw the"), renderer.tokenizer.eos_token_id)
    shown = "".join(text for text, _ in pieces(ids, renderer))
    assert shown == " saw the</s>"


def test_why_and_fix_that_several_findings_share_are_said_once() -> None:
    found = [
        warn("12 prompts of sft are cut"),
        warn("7 prompts of dpo are cut"),
        warn("no end", fix="mend the row"),
        info("sft: 3"),
    ]
    check = Check(id="D4", title="t", why="cut is lost", fix="raise lengths", quick=True, look=lambda patient: ())
    shown = io.StringIO()
    results = [Result(check=check, findings=tuple(found))]
    show(cast(Any, SimpleNamespace(results=results, patient=None)), Console(file=shown, width=100))
    lines = shown.getvalue().splitlines()
    seen = [i for i, line in enumerate(lines) if line.startswith(("WARN", "INFO"))]
    assert [lines[i].split("D4")[1].strip() for i in seen] == [f.seen for f in found]
    assert [line.strip() for line in lines].count("fix raise lengths") == 1
    assert seen[1] < lines.index(next(line for line in lines if "fix raise lengths" in line)) < seen[2]
    assert sum("cut is lost" in line for line in lines) == 2, "with another fix it is another advice"
