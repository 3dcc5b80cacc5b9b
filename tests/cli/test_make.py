"""`evenhand data revise | invent | phrase | pairs`: what they write, that it loads, and that a stop costs little."""

from __future__ import annotations

import io
import json

import pytest

from evenhand.cli.terminal import Progress
from evenhand.data.load import load
from evenhand.judges.chat import ChatReply
from evenhand.types import Message

SERVER = ("--model", "m", "--endpoint", "http://localhost:1/v1")


@pytest.fixture
def server(monkeypatch):
    """An endpoint that answers by `reply(text)`; `asked` lists what reached it."""
    asked: list[str] = []

    def serve(reply):
        def complete(self, requests):
            for i, request in enumerate(requests):
                asked.append(request.messages[-1].content)
                yield i, ChatReply(text=reply(asked[-1]))

        monkeypatch.setattr("evenhand.judges.endpoint.Endpoint.complete", complete)
        return asked

    return serve


def rows(path, *made):
    path.write_text("".join(json.dumps(r) + "\n" for r in made))
    return path


def reviser(text: str) -> str:
    if text.endswith("Critique:"):
        return "It is rude."
    return "Gentler." if text.endswith("Revision:") else "First."


def test_revise_writes_demonstrations_pairs_and_the_history(cli, server, tmp_path):
    asked = server(reviser)
    given = rows(tmp_path / "p.jsonl", {"question": "Why?"}, {"question": "Where? " * 99})
    (tmp_path / "c.yaml").write_text("- {name: kindness, critique: What is rude., revision: Be kind.}\n")
    out = tmp_path / "out"
    options = (*SERVER, "--principles", tmp_path / "c.yaml", "--max-chars", 100, "--out", out)
    code, said, err = cli("data", "revise", given, *options)
    assert code == 0, err
    assert "1 answers, 1 of them changed; 3 asked, 0 known already" in said
    assert "left out: 1 too long, 0 without a first answer" in said
    assert "Critique request: What is rude." in asked[1]
    assert "Revision request: Be kind." in asked[2]
    (demonstration,) = load({"path": str(out / "demonstrations.jsonl"), "use": "demonstrations"}).groups
    assert demonstration.prompt.content == (Message("user", "Why?"),)
    assert demonstration.completions[0].content == (Message("assistant", "Gentler."),)
    (pair,) = load({"path": str(out / "pairs.jsonl"), "use": "pairs"}).groups
    assert [c.text for c in pair.completions] == ["Gentler.", "First."]
    told = json.loads((out / "revisions.jsonl").read_text())
    assert told["steps"] == [{"principle": "kindness", "critique": "It is rude."}]
    code, said, _ = cli("data", "revise", given, *options)
    assert "0 asked, 3 known already" in said


def test_a_stopped_revision_leaves_nothing_half_written(cli, server, tmp_path):
    def broken(text: str) -> str:
        if text.endswith("Revision:"):
            raise KeyError("a bug")
        return reviser(text)

    server(broken)
    given, out = rows(tmp_path / "p.jsonl", {"question": "Why?"}), tmp_path / "out"
    assert cli("data", "revise", given, *SERVER, "--out", out)[0] == 1
    assert [p.name for p in out.iterdir()] == ["replies.jsonl"]
    asked = server(reviser)
    asked.clear()
    assert cli("data", "revise", given, *SERVER, "--out", out)[0] == 0
    assert len(asked) == 1, "the answer and the critique are known"


def test_a_model_on_this_machine_revises_too(cli, models, tmp_path):
    given = rows(
        tmp_path / "d.jsonl", {"messages": [{"role": "user", "content": "red"}, {"role": "assistant", "content": "blue"}]}
    )
    policy = models / "arms" / "dpo" / "seed-0"
    out = tmp_path / "out"
    (tmp_path / "c.yaml").write_text("- {name: red, critique: red, revision: blue}\n")
    options = ("--max-tokens", 3, "--principles", tmp_path / "c.yaml")
    code, _, err = cli("data", "revise", given, "--model", policy, "--out", out, *options)
    assert code == 0, err
    made = json.loads((out / "revisions.jsonl").read_text())
    assert made["answers"][0] == "blue"
    assert len(made["answers"]) == 2


def test_invent_keeps_what_is_new_and_says_what_it_left_out(cli, server, tmp_path):
    def write(text: str) -> str:
        if not text.startswith("Come up with"):
            return f"Answer to {text}"
        return "Explain how a bridge stands.\nTask 10: Draw a picture of a horse.\nTask 11: Name three rivers."

    server(write)
    (tmp_path / "seeds.txt").write_text("Name three rivers.\nSay hello in Welsh.\n")
    out = tmp_path / "out"
    code, said, err = cli("data", "invent", tmp_path / "seeds.txt", *SERVER, "--count", 1, "--rounds", 1, "--out", out)
    assert code == 0, err
    assert "1 new instructions; left out: 15 like an earlier one, 8 asks for what text cannot hold" in said
    (made,) = load(str(out / "demonstrations.jsonl")).groups
    assert made.prompt.text == "Explain how a bridge stands."
    assert made.completions[0].text == "Answer to Explain how a bridge stands."


def test_phrase_splits_by_kind(cli, tmp_path):
    reviews = rows(tmp_path / "reviews.jsonl", *({"text": f"film {i}", "label": "good"} for i in range(5)))
    posts = rows(tmp_path / "posts.jsonl", {"text": "long", "summary": "short"})
    out, sources = tmp_path / "out", (f"sentiment={reviews}", f"summary={posts}")
    code, said, err = cli("data", "phrase", *sources, "--per-row", 2, "--hold-out", "summarisation", "--out", out)
    assert code == 0, err
    assert "10 demonstrations, 2 held out (2 summarisation)" in said
    assert {g.prompt.meta["task"] for g in load(str(out / "demonstrations.jsonl")).groups} == {"sentiment"}
    assert {g.prompt.meta["task"] for g in load(str(out / "heldout.jsonl")).groups} == {"summary"}
    code, _, err = cli("data", "phrase", f"sentimnt={reviews}", "--out", out)
    assert code == 2
    assert "did you mean 'sentiment'" in err


RANKED = {"prompt": "p", "completions": ["a", "b", "c"], "scores": [3, 1, 2.5]}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), ["ab", "cb", "ac"]),
        (("--margin", 0.5), ["ab", "cb"]),
        (("--choose", "best-worst"), ["ab"]),
        (("--per-prompt", 2), ["ab", "cb"]),
    ],
)
def test_pairs_from_ratings(cli, tmp_path, options, expected):
    given, out = rows(tmp_path / "r.jsonl", RANKED), tmp_path / "pairs.jsonl"
    code, _, err = cli("data", "pairs", given, "--out", out, *options)
    assert code == 0, err
    groups = load({"path": str(out), "use": "pairs"}).groups
    assert ["".join(c.text for c in g.completions) for g in groups] == expected


def test_flipped_pairs_are_counted(cli, tmp_path):
    given, out = rows(tmp_path / "r.jsonl", *({**RANKED, "prompt": str(i)} for i in range(50))), tmp_path / "pairs.jsonl"
    code, said, err = cli("data", "pairs", given, "--choose", "random", "--flip", 1, "--out", out)
    assert code == 0, err
    assert "50 pairs from 50 groups, 50 with swapped labels" in said
    flipped = load(str(out)).groups
    assert {"".join(c.text for c in g.completions) for g in flipped} == {"ab", "cb", "ac"}
    assert all(g.scores[0] < g.scores[1] for g in flipped), "the better answer came first and has the lower score now"


def test_the_time_left_counts_only_what_was_done_now():
    now = [0.0]

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    progress = Progress("asked", out, clock=lambda: now[0])
    progress(50, 100)
    now[0] = 10.0
    progress(60, 100)
    assert out.getvalue().endswith("asked 60 of 100, 0:00:40 left")
    now[0] = 50.0
    progress(100, 100)
    assert out.getvalue().endswith("asked 100 of 100\n")


def test_a_log_gets_a_line_now_and_then():
    now, out = [0.0], io.StringIO()
    progress = Progress("asked", out, clock=lambda: now[0])
    for second in range(1, 91):
        now[0] = float(second)
        progress(second, 100)
    assert out.getvalue().count("\n") == 3
