"""`evenhand judge`, `evaluate` and `score` from the command line, on small files, models and a finished run made by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evenhand.data.jsonl import read_groups, write_groups
from evenhand.types import Completion, Group, Prompt

SHAPE = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 256, "initializer_range": 0.3,
}  # fmt: skip


def answers(path: Path, text: str) -> Path:
    rows = [Group(prompt=Prompt(content=f"q{i}"), completions=(Completion(content=f"{text} number {i}"),)) for i in range(12)]
    write_groups(path, rows)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """What `evenhand run` leaves, as far as evaluation looks."""
    folder = tmp_path / "run"
    for arm, text in (("sft", "a sad and terrible day"), ("dpo", "a happy and wonderful day")):
        for seed in (0, 1):
            answers(folder / "generations" / arm / f"seed-{seed}" / "generations.jsonl", text)
    arms = {"sft": {"win_rate": 0.5, "method": "start"}, "dpo": {"win_rate": 0.9, "ci95": [0.8, 1.0], "method": "dpo", "kl": 2.0}}
    results = {"name": "r", "baseline": "sft", "arms": arms, "judge": {"name": "g"}, "n_prompts": 12, "seeds": [0, 1]}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def test_judge_two_files(cli, tmp_path):
    a, b = answers(tmp_path / "a.jsonl", "I love this happy"), answers(tmp_path / "b.jsonl", "I hate this sad")
    code, out, err = cli("judge", a, b, "--judge", "vader", "--out", tmp_path / "out", "--format", "alpaca_eval")
    assert code == 0, err
    assert "a wins 100.0% against b" in out
    assert "self-test" in out
    rows = [json.loads(line) for line in (tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()]
    assert len(rows) == 12
    assert {(r["policy"], r["baseline"], r["outcome"]) for r in rows} == {("a", "b", 1.0)}
    outputs = [json.loads((tmp_path / "out" / f"{k}_outputs.json").read_text()) for k in ("model", "reference")]
    assert [(o[0]["generator"], o[0]["output"], len(o)) for o in outputs] == [
        ("a", "I love this happy number 0", 12),
        ("b", "I hate this sad number 0", 12),
    ]
    annotations = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert {r["preference"] for r in annotations} == {2.0}
    assert (tmp_path / "out" / "leaderboard.csv").read_text().splitlines()[1].startswith("a,100.0,")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["win_rate"] == 1.0
    assert summary["length_controlled"]["win_rate"] is None  # refused: every comparison has the same outcome
    code, out, _ = cli("evaluate", tmp_path / "out" / "annotations.json")
    assert code == 0
    assert "AlpacaEval annotations" in out
    code, out, err = cli("evaluate", tmp_path / "out" / "verdicts.jsonl")  # its own verdicts are an outcome file
    assert code == 0, err
    assert "a  100.0%" in out


def test_judge_and_score_and_evaluate_a_finished_run(cli, run, tmp_path):
    code, out, err = cli("judge", run, "--judge", "vader", "--out", tmp_path / "out")
    assert code == 0, err
    assert "dpo  100.0%" in out
    assert len((tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()) == 24
    code, out, err = cli("score", "vader", run, "--out", tmp_path / "scored")
    assert code == 0, err
    assert "dpo-seed-1: 12 answers: mean" in out
    assert read_groups(tmp_path / "scored" / "sft-seed-0.jsonl")[0].scores[0] < 0
    code, out, err = cli("evaluate", run, "--leaderboard", tmp_path / "lb.jsonl", "--out", tmp_path / "e.json")
    assert code == 0, err
    lines = [json.loads(line) for line in (tmp_path / "lb.jsonl").read_text().splitlines()]
    assert [(row["arm"], row["win_rate"], row["judge"]) for row in lines] == [("sft", 0.5, "g"), ("dpo", 0.9, "g")]
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["arms"]["dpo"]["text"]["answers"] == 24
    assert found["arms"]["dpo"]["kl"] == 2.0


def test_arena_hards_files(cli, tmp_path):
    a, b = answers(tmp_path / "a.jsonl", "I love this happy"), answers(tmp_path / "b.jsonl", "I hate this sad")
    code, _, err = cli("judge", a, b, "--judge", "vader", "--out", tmp_path / "o", "--format", "arena_hard", "--self-test", 0)
    assert code == 0, err
    games = [json.loads(line) for line in (tmp_path / "o" / "a.jsonl").read_text().splitlines()]
    assert [g["score"] for g in games[0]["games"]] == ["B>A", "A>B"]
    texts = tmp_path / "o" / "model_answer"
    given = ("--answers", texts / "a.jsonl", "--baseline", texts / "b.jsonl", "--out", tmp_path / "style.json")
    code, out, err = cli("stats", "style", tmp_path / "o" / "a.jsonl", *given)
    assert code == 0, err
    found = json.loads((tmp_path / "style.json").read_text())["models"]["a"]
    assert (found["n"], found["win_rate"]) == (12, 1.0)
    assert found["style"]["length"] > found["baseline_style"]["length"]
    code, out, err = cli("evaluate", tmp_path / "o" / "a.jsonl")
    assert "Arena-Hard judgments" in out
    assert "score: 100" in out


def test_judge_says_what_is_missing(cli, tmp_path):
    a = answers(tmp_path / "a.jsonl", "x")
    for arguments, message in [
        ((a, a), "no judge is named"),
        ((a, "--judge", "vader"), "nothing to compare with"),
        ((a, a, "--judge", "vader", "--orders", "one"), "--orders is for language models"),
        ((a, a, "--judge", "vader", "--template", "tldr"), "--template is for language models"),
        ((a, a, "--judge", "{kind: llm, model: m, temprature: 1}"), "did you mean 'temperature'"),
        ((a, a, "--model", "m", "--endpoint", "http://127.0.0.1:9/v1", "--max-cost", "1"), "price of 'm' is not known"),
        ((tmp_path / "none.jsonl", a, "--judge", "vader"), "no such file"),
    ]:
        code, _, err = cli("judge", *arguments, "--out", tmp_path / "o")
        assert code == 2
        assert message in err, err


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    from evenhand.models.load import new_policy, reward_model_from, save
    from evenhand.worlds.tokenizer import word_tokenizer

    root = tmp_path_factory.mktemp("models")
    tokenizer = word_tokenizer(["q day number happy sad a b", " q day number happy sad a b"])
    save(new_policy(SHAPE, tokenizer, seed=0, device="cpu"), tokenizer, root / "policy")
    save(new_policy(SHAPE, tokenizer, seed=1, device="cpu"), tokenizer, root / "start")
    save(reward_model_from(root / "policy", seed=0, device="cpu"), tokenizer, root / "rm")
    return root


def test_evaluate_reward_models_side_by_side(cli, models, tmp_path):
    rows = [
        {"prompt": f"q {i}", "chosen": "a happy day", "rejected": "a sad day number", "subset": "odd" if i % 2 else "even"}
        for i in range(6)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    dpo = f"dpo:{models / 'policy'}:{models / 'start'}:0.1"
    local, out = f"local:{models / 'policy'}:0.1", tmp_path / "rm.json"
    others = ("--against", dpo, "--against", local, "--device", "cpu", "--out", out)
    code, _, err = cli("evaluate", models / "rm", "--pairs", tmp_path / "pairs.jsonl", *others)
    assert code == 0, err
    found = json.loads((tmp_path / "rm.json").read_text())
    assert set(found["categories"]) == {"odd", "even"}
    assert set(found["side_by_side"]) == {str(models / "rm"), dpo, local}
    assert found["side_by_side"][dpo]["n"] == 6
    assert "repetition" in found["probes"]
    code, _, err = cli("evaluate", models / "rm")
    assert code == 2
    assert "needs pairs" in err


def test_evaluate_a_policy_on_safe_and_unsafe_prompts(cli, models, tmp_path):
    code, _, err = cli("evaluate", models / "policy", "--max-tokens", 4, "--device", "cpu", "--out", tmp_path / "p.json")
    assert code == 0, err
    found = json.loads((tmp_path / "p.json").read_text())
    assert found["text"]["refusals"]["unsafe"]["n"] == found["text"]["refusals"]["safe"]["n"] > 5
    assert found["text"]["mean_length"] <= 4
    assert "entropy" in found["text"]


def test_evaluate_an_outcome_file(cli, tmp_path):
    lines = ["arm,prompt,outcome"] + [f"{arm},{i},{int(i % 5 < k)}" for arm, k in (("x", 4), ("y", 1)) for i in range(60)]
    (tmp_path / "o.csv").write_text("\n".join(lines) + "\n")
    code, out, err = cli("evaluate", tmp_path / "o.csv")
    assert code == 0, err
    assert "x - y: +60.0 points" in out
    assert "cannot be seen" in out


def test_a_reward_chooses_among_a_files_answers(cli, tmp_path):
    groups = [
        Group(
            prompt=Prompt(content=f"q{i}"), scores=(0.0, 1.0, 0.5),
            completions=tuple(Completion(content=t) for t in ("awful", "wonderful", "a table")),
        )
        for i in range(5)
    ]  # fmt: skip
    write_groups(tmp_path / "g.jsonl", groups)
    code, _, err = cli("evaluate", tmp_path / "g.jsonl", "--against", "vader", "--out", tmp_path / "o.json")
    assert code == 0, err
    curves = json.loads((tmp_path / "o.json").read_text())["best_of_n"]
    assert [p["gold"] for p in curves["vader"]] == pytest.approx([0.5, (1 + 1 + 0.5) / 3, 1.0])
