"""`evaluate`, `score` and `judge`, each on models, on files of answers and on a finished run; and on what is none of them."""

from __future__ import annotations

import json
import shutil

import pytest

from evenhand.data.jsonl import read_groups, write_groups
from evenhand.types import Completion, Group, Prompt

SHAPE = {
    "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 256, "initializer_range": 0.3,
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A finished run of two arms and two seeds as `evenhand run` leaves it: answers, results, and an arm with its model."""
    from evenhand.models.load import new_policy, reward_model_from, save
    from evenhand.worlds.tokenizer import word_tokenizer

    root = tmp_path_factory.mktemp("world")
    tokenizer = word_tokenizer(
        ["q day number happy sad wonderful terrible a b", " q day number happy sad wonderful terrible a b"]
    )
    run = root / "run"
    for seed in (0, 1):
        save(new_policy(SHAPE, tokenizer, seed=seed, device="cpu"), tokenizer, run / "arms" / "dpo" / f"seed-{seed}" / "model")
        for arm, word in (("sft", "sad terrible"), ("dpo", "happy wonderful")):
            rows = [
                Group(prompt=Prompt(content=f"q {i}"), completions=(Completion(content=f"a {word} day {i}"),)) for i in range(6)
            ]
            (run / "generations" / arm / f"seed-{seed}").mkdir(parents=True)
            write_groups(run / "generations" / arm / f"seed-{seed}" / "generations.jsonl", rows)
    save(reward_model_from(run / "arms" / "dpo" / "seed-0" / "model", seed=0, device="cpu"), tokenizer, root / "rm")
    results = {"name": "r", "baseline": "sft", "arms": {"sft": {"win_rate": 0.5}, "dpo": {"win_rate": 0.9}}, "seeds": [0, 1]}
    (run / "results.json").write_text(json.dumps(results))
    (root / "prompts.txt").write_text("q happy\nq sad\nq number\n")
    return root


def arm(world, seed=0):
    return world / "run" / "arms" / "dpo" / f"seed-{seed}"


def answers(world, name, seed=0):
    return world / "run" / "generations" / name / f"seed-{seed}"


def test_evaluate_models_files_and_runs(cli, world, tmp_path):
    out = tmp_path / "e.json"
    asked = ("--prompts", world / "prompts.txt", "--max-tokens", 4, "--device", "cpu", "--out", out)
    code, _, err = cli("evaluate", arm(world), *asked)
    assert code == 0, err
    assert json.loads(out.read_text())["text"]["answers"] == 3
    for target in (answers(world, "dpo"), answers(world, "dpo") / "generations.jsonl"):
        code, _, err = cli("evaluate", target, "--out", out)
        assert code == 0, err
        found = json.loads(out.read_text())
        assert (found["kind"], found["text"]["answers"]) == ("answers", 6)
    code, _, err = cli("evaluate", world / "run", "--out", out)
    assert code == 0, err
    assert json.loads(out.read_text())["arms"]["dpo"]["text"]["answers"] == 12


def test_score_models_files_and_runs(cli, world, tmp_path):
    code, out, err = cli(
        "score", "vader", arm(world), "--prompts", world / "prompts.txt", "--device", "cpu", "--out", tmp_path / "m"
    )
    assert code == 0, err
    assert "3 answers: mean" in out
    assert [g.prompt.text for g in read_groups(tmp_path / "m")] == ["q happy", "q sad", "q number"]
    for scorer in (world / "rm", arm(world)):  # by a reward model, and by a policy's log-probs
        code, out, err = cli("score", scorer, answers(world, "sft"), "--device", "cpu")
        assert code == 0, err
        assert "6 answers: mean" in out
    code, out, err = cli("score", world / "rm", world / "run", "--device", "cpu")
    assert code == 0, err
    assert out.count("6 answers: mean") == 4


def test_judge_models_files_and_runs(cli, world, tmp_path):
    by = ("--judge", "vader", "--out", tmp_path / "j", "--self-test", 0)
    asked = ("--prompts", world / "prompts.txt", "--max-tokens", 4)
    code, out, err = cli("judge", arm(world), arm(world, 1), *by, *asked)
    assert code == 0, err
    assert "seed-0 wins" in out
    assert "n = 3" in out
    code, out, err = cli("judge", answers(world, "dpo"), answers(world, "sft") / "generations.jsonl", *by)
    assert code == 0, err
    assert "dpo wins 100.0%" in out
    code, out, err = cli("judge", world / "run", *by, "--limit", 4)
    assert code == 0, err
    assert "dpo  100.0%" in out
    assert len((tmp_path / "j" / "verdicts.jsonl").read_text().splitlines()) == 8  # 4 prompts, 2 seeds


@pytest.mark.parametrize("command", [("score", "vader"), ("evaluate",), ("judge", "--judge", "vader")])
def test_a_run_that_is_not_finished_is_called_so(cli, tmp_path, command):
    run = tmp_path / "run"
    run.mkdir()
    (run / "experiment.json").write_text("{}")
    code, _, err = cli(*command, run)
    assert code == 2
    assert f"{run}: this run is not finished" in err
    assert f"fix: finish it: `evenhand run {run}`" in err


def test_a_seed_that_the_baseline_has_not_is_left_out(cli, world, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(world / "run", run, ignore=shutil.ignore_patterns("arms"))
    shutil.rmtree(run / "generations" / "sft" / "seed-1")
    code, out, err = cli("judge", run, "--judge", "vader", "--self-test", 0, "--out", tmp_path / "j")
    assert code == 0, err
    assert "n = 6, seeds = 1" in out
    shutil.rmtree(run / "generations" / "sft")
    code, _, err = cli("judge", run, "--judge", "vader", "--out", tmp_path / "k")
    assert (code, "has no answers of its baseline" in err) == (2, True), err


def test_what_is_no_target_is_said(cli, world, tmp_path):
    run, model, vader = world / "run", arm(world), ("--judge", "vader", "--out", tmp_path)
    for arguments, message in [
        (("judge", run, run, *vader), "is a run directory"),
        (("judge", model, answers(world, "sft"), *vader), "is a model, and there is nothing to answer"),
        (("judge", world / "none", answers(world, "sft"), *vader), "there is no such file or model"),
        (("judge", model, *vader), "is not a run directory"),
        (("judge", world / "none.jsonl", *vader), "there is no such file or folder"),
        (("judge", world / "rm", world / "rm", *vader, "--prompts", world / "prompts.txt"), "is a reward model"),
        (("score", "vader", model), "is a model, and there is nothing to answer"),
        (("score", "vader", model.parent), "holds several seeds"),
        (("score", "vader", world / "none.jsonl"), "no such file"),
        (("evaluate", model.parent), "holds several seeds"),
        (("evaluate", world / "none.jsonl"), "there is no such file or folder"),
        (("evaluate", world / "no" / "model"), "there is no such file or folder"),
        (("evaluate", run, "--pairs", "p.jsonl"), "is not a reward model"),
        (("evaluate", world / "rm"), "needs pairs"),
    ]:
        code, _, err = cli(*arguments)
        assert code == 2, (arguments, err)
        assert message in err, (arguments, err)


def test_a_judge_on_labelled_pairs(cli, tmp_path):
    rows = [{"prompt": f"q{i}", "chosen": "a happy day", "rejected": "a sad day", "subset": "xy"[i % 2]} for i in range(6)]
    rows[0] |= {"chosen": "a terrible day", "rejected": "a wonderful day"}
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    code, out, err = cli("judge", tmp_path / "pairs.jsonl", "--judge", "vader", "--out", tmp_path / "o")
    assert code == 0, err
    assert "agrees with 83.3% of 6 labels" in out
    assert "x: 66.7% of 3" in out
    assert json.loads((tmp_path / "o" / "summary.json").read_text())["categories"]["y"]["agreement"] == 1.0


def test_rm_bench_and_judge_bench_by_name_alone(cli, tmp_path):
    """The command tells the files by their fields; a program stands in for the reward model."""
    good, bad = ["a happy day"] * 3, ["a sad day"] * 3
    row = {"id": "1", "prompt": "q", "chosen": good, "rejected": bad, "domain": "chat"}
    (tmp_path / "rm.json").write_text(json.dumps([row, {**row, "chosen": bad, "rejected": good}]))
    code, out, err = cli("evaluate", "vader", "--pairs", tmp_path / "rm.json", "--out", tmp_path / "o.json")
    assert code == 0, err
    found = json.loads((tmp_path / "o.json").read_text())
    assert (found["kind"], found["domains"]["chat"]["normal"]) == ("RM-Bench", 0.5)
    said = {"response_A": "a sad day", "response_B": "a happy day", "label": "B>A"}
    pair = {"pair_id": "1", "source": "livebench-reasoning", "question": "q", **said}  # fmt: skip
    (tmp_path / "jb.jsonl").write_text(json.dumps(pair) + "\n")
    code, out, err = cli("evaluate", "vader", "--pairs", tmp_path / "jb.jsonl")
    assert code == 0, err
    assert "kind: JudgeBench" in out
    assert "accuracy: 1" in out


def test_mt_bench_answers_are_judged_with_their_questions(cli, tmp_path):
    from evenhand.evaluation.mt_bench import write_answers

    questions = [{"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]}]
    (tmp_path / "question.jsonl").write_text(json.dumps(questions[0]) + "\n")
    write_answers(tmp_path / "m.jsonl", {"81": ["a happy day", "a wonderful day"]}, "m")
    write_answers(tmp_path / "b.jsonl", {"81": ["a sad day", "a terrible day"]}, "base")
    given = ("judge", tmp_path / "m.jsonl", tmp_path / "b.jsonl", "--judge", "vader", "--out", tmp_path / "o", "--self-test", 0)
    code, out, err = cli(*given, "--prompts", tmp_path / "question.jsonl", "--format", "mt_bench")
    assert code == 0, err
    assert "m wins 100.0% against base" in out
    rows = [json.loads(line) for line in (tmp_path / "o" / "pair.jsonl").read_text().splitlines()]
    assert [(r["question_id"], r["turn"], r["g1_winner"], r["g2_winner"]) for r in rows] == [
        (81, 1, "model_1", "model_1"),
        (81, 2, "model_1", "model_1"),
    ]
    code, out, _ = cli("evaluate", tmp_path / "o" / "pair.jsonl")
    assert "win_rate_adjusted: 1" in out
    code, _, err = cli(*given)
    assert code == 2
    assert "the questions are not in the file" in err
    code, _, err = cli(*given, "--format", "arena_hard", "--orders", "one")
    assert code == 2
    assert "hold both orders" in err
