"""`evenhand label`: any judge, answers of a file or fresh ones, and going on after a stop."""

from __future__ import annotations

import json

import pytest

from evenhand.data.load import load
from evenhand.types import Message

LONGER = "{kind: length, unit: words}"


@pytest.fixture
def answers(tmp_path):
    path = tmp_path / "answers.jsonl"
    rows = [{"prompt": f"red {c}", "completions": ["white", "blue black", "red red red"]} for c in ("red", "green", "blue")]
    path.write_text("".join(json.dumps(r) + "\n" for r in [*rows, {"prompt": "white", "completions": ["red", "blue"]}]))
    return path


def test_best_and_worst_by_a_program_load_as_pairs(cli, answers, tmp_path):
    out = tmp_path / "pairs.jsonl"
    code, said, err = cli("label", answers, "--judge", LONGER, "--pairs", "best-worst", "--out", out)
    assert code == 0, err
    assert "3 pairs from 4 prompts" in said
    assert "1 tied" in said
    assert "the preferred answer is the longer one in 100.0%" in said
    data = load({"path": str(out), "use": "pairs"})
    assert [[c.text for c in g.completions] for g in data.groups] == [["red red red", "white"]] * 3
    assert all(g.parts["value"] == (3.0, 1.0) for g in data.groups)


def test_noise_and_margins(cli, answers, tmp_path):
    options = ("--judge", LONGER, "--pairs", "all", "--out", tmp_path / "pairs.jsonl")
    code, said, err = cli("label", answers, *options, "--margin", 1, "--flip", 1)
    assert code == 0, err
    assert "1 tied, 6 within the margin" in said
    flipped = load(str(tmp_path / "pairs.jsonl")).groups
    assert [g.parts["flipped"] for g in flipped] == [(1.0, 1.0)] * 3
    best = [max(zip(g.scores, g.completions, strict=True), key=lambda sc: sc[0])[1].text for g in flipped]
    assert best == ["white"] * 3
    code, _, err = cli("label", answers, *options, "--margin", 5)
    assert code == 2
    assert "no pair is left" in err


def test_on_policy_pairs_are_sampled_judged_and_not_sampled_again(cli, models, tmp_path, monkeypatch):
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "pairs.jsonl"
    prompts.write_text("".join(json.dumps({"messages": [{"role": "user", "content": c}]}) + "\n" for c in ("red", "blue")))
    policy = models / "arms" / "dpo" / "seed-0"
    options = ("--answers-by", policy, "-n", 3, "--max-tokens", 4, "--judge", models / "rm", "--out", out)
    code, _, err = cli("label", prompts, *options, "--labels", "soft")
    assert code == 0, err
    made = out.read_bytes()
    groups = load(str(out)).groups
    assert [g.prompt.content for g in groups] == [(Message("user", "red"),), (Message("user", "blue"),)]
    assert all(sum(g.scores) == pytest.approx(1.0) and g.completions[0].tokens for g in groups)

    def no_more(*_, **__):
        raise AssertionError("sampled or scored again")

    monkeypatch.setattr("evenhand.engines.local.LocalEngine.generate", no_more)
    monkeypatch.setattr("evenhand.rewards.model.ModelReward.__call__", no_more)
    code, _, err = cli("label", prompts, *options, "--labels", "soft")
    assert code == 0, err
    assert out.read_bytes() == made


def test_prompts_alone_need_someone_to_answer(cli, tmp_path):
    (tmp_path / "p.jsonl").write_text('{"prompt": "red"}\n')
    code, _, err = cli("label", tmp_path / "p.jsonl", "--judge", LONGER, "--out", tmp_path / "o.jsonl")
    assert code == 2
    assert "no prompt has two answers" in err
    assert "--answers-by MODEL" in err
    assert not (tmp_path / "o.jsonl").exists()


def test_a_language_model_is_asked_in_both_orders_once(cli, answers, tmp_path, monkeypatch):
    from evenhand.judges.chat import ChatReply

    asked = []

    def complete(self, requests):
        for i, request in enumerate(requests):
            text = request.messages[-1].content
            asked.append(text)
            yield i, ChatReply(text="Preferred: " + ("A" if "<answer A>\nred red red" in text else "B"))

    monkeypatch.setattr("evenhand.judges.endpoint.Endpoint.complete", complete)
    given = tmp_path / "one.jsonl"
    given.write_text(json.dumps({"prompt": "p", "completions": ["white", "red red red"]}) + "\n")
    options = ("--model", "m", "--endpoint", "http://localhost:1/v1")
    out = tmp_path / "o.jsonl"
    code, said, err = cli("label", given, *options, "--out", out)
    assert code == 0, err
    assert "2 asked, 0 known already" in said
    assert "same verdict in both orders 100.0%" in said
    code, said, _ = cli("label", given, *options, "--out", out)
    assert "0 asked, 2 known already" in said
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--judge", LONGER, "--guidelines", "GUIDE"), "--guidelines: has no effect here"),
        (("--judge", LONGER, "--again", 0.2), "--again: has no effect here"),
        (("--flip", 0.2), "--flip: has no effect here"),
        (("--judge", LONGER, "--max-tokens", 9), "--max-tokens: has no effect here"),
    ],
)
def test_an_option_of_the_way_that_is_not_taken_is_refused(cli, answers, tmp_path, options, said):
    (tmp_path / "guide.md").write_text("be kind")
    given = [str(tmp_path / "guide.md") if o == "GUIDE" else o for o in options]
    code, _, err = cli("label", answers, "--out", tmp_path / "o.jsonl", *given)
    assert code == 2
    assert said in err
