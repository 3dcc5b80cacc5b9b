from __future__ import annotations

import io
import json
import math
import shutil
import sys
from dataclasses import replace

import pytest

from evenhand.cli.inference import agreement, summary
from evenhand.data.jsonl import read_groups
from evenhand.types import Completion, Group, Prompt, Scores


def test_generate_writes_groups_and_repeats_itself(cli, models, tmp_path):
    (tmp_path / "prompts.txt").write_text("red green\n\nblue\n")
    arm = models / "arms" / "dpo" / "seed-0"
    options = ("--prompts", tmp_path / "prompts.txt", "--prompt", "white", "-n", 3, "--max-tokens", 5, "--device", "cpu")
    for name, seed in [("a", 1), ("b", 1), ("c", 2)]:
        code, out, err = cli("generate", arm, *options, "--seed", seed, "--out", tmp_path / f"{name}.jsonl")
        assert code == 0, err
        assert "3 prompts with 3 answers each" in out
    groups = read_groups(tmp_path / "a.jsonl")
    assert [g.prompt.text for g in groups] == ["white", "red green", "blue"]
    assert [m.role for m in groups[0].prompt.content] == ["user"], "a model with a chat template gets a user's turn"
    assert all(len(c.tokens) <= 5 for g in groups for c in g.completions)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert (tmp_path / "a.jsonl").read_bytes() != (tmp_path / "c.jsonl").read_bytes()


def test_generate_prints_answers_and_raw_means_verbatim(cli, models):
    arm = models / "arms" / "dpo" / "seed-0"
    code, out, _ = cli("generate", arm, "--prompt", "red", "--raw", "--max-tokens", 3, "--temperature", 0, "--device", "cpu")
    assert code == 0
    assert out.startswith("red\n")
    assert "tokens]" in out


def test_text_in_a_file_of_rows_is_read_verbatim_and_that_is_said(cli, models, tmp_path):
    rows = [{"prompt": "red"}, {"messages": [{"role": "user", "content": "green"}]}]
    (tmp_path / "p.jsonl").write_text(json.dumps(rows[0]) + "\n")
    (tmp_path / "turns.jsonl").write_text(json.dumps(rows[1]) + "\n")
    options = ("--max-tokens", 3, "--device", "cpu")
    said = {}
    for name, more in (("p.jsonl", ()), ("p.jsonl", ("--raw",)), ("turns.jsonl", ())):
        code, _, err = cli("generate", models / "arms" / "dpo" / "seed-0", "--prompts", tmp_path / name, *options, *more)
        assert code == 0, err
        said[name, more] = "1 of 1 prompts are text, which the model reads verbatim" in err
    assert list(said.values()) == [True, False, False]


def test_generate_needs_a_prompt(cli, models):
    code, _, err = cli("generate", models / "arms" / "dpo" / "seed-0")
    assert code == 2
    assert "--prompt TEXT or --prompts FILE" in err


def test_a_run_directory_is_no_model_and_an_arm_of_it_is_named(cli, models, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(models / "arms", run / "arms")
    (run / "experiment.json").write_text("{}")
    code, _, err = cli("generate", run, "--prompt", "red")
    assert code == 2
    assert f"{run}: is a run directory, not one model\n  fix: choose an arm and seed, such as {run}/arms/dpo/seed-0" in err


def test_an_arm_of_several_seeds_is_no_model(cli, models):
    code, _, err = cli("generate", models / "arms" / "dpo", "--prompt", "red")
    assert code == 2
    assert "choose one" in err
    assert "seed-0" in err


@pytest.mark.parametrize("sampling", [{"temperature": 0.0}, {"temperature": 1.0, "top_p": 0.9}, {"temperature": 0.7, "top_k": 3}])
def test_a_conversation_is_spoken_as_the_engine_samples_it(models, tokenizer, sampling):
    from evenhand.cli.inference import Speaker
    from evenhand.data.template import Renderer
    from evenhand.engines.local import LocalEngine
    from evenhand.models.load import load_policy
    from evenhand.seeding import keyed
    from evenhand.types import Message, Sampling

    renderer = Renderer(tokenizer)
    engine = LocalEngine(load_policy(models / "arms" / "dpo" / "seed-0" / "model", device="cpu"), renderer)
    history = [Message("user", "red"), Message("assistant", "green"), Message("user", "blue")]
    speaker = Speaker(engine.stream, renderer, Sampling(**sampling, max_tokens=8, seed=3))
    for given in range(2):
        pieces = []
        answer = speaker.say(history, pieces.append)
        keys = Sampling(**sampling, max_tokens=8, seed=keyed(3, "chat", given))
        group = engine.generate([Prompt(content=tuple(history))], 1, keys)[0]
        assert answer == group.completions[0].text
        assert "".join(pieces) == answer


def test_chat_goes_on_until_an_empty_line(cli, models, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("red\n/new\nblue\n\nnever read\n"))
    code, out, err = cli("chat", models / "arms" / "dpo" / "seed-0", "--max-tokens", 3, "--device", "cpu")
    assert code == 0, err
    assert out.count("> ") == 4


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": "red", "chosen": " green", "rejected": " blue black"},
        {"prompt": "blue", "chosen": " red", "rejected": " white"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_policys_scores_are_its_log_probs(cli, models, pairs, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = models / "arms" / "dpo" / "seed-0" / "model"
    code, out, err = cli("score", folder, pairs, "--out", tmp_path / "scored.jsonl", "--device", "cpu")
    assert code == 0, err
    assert "pairs" in out
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer("red", add_special_tokens=True)["input_ids"]
    answer = [*tokenizer(" green", add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    with torch.no_grad():
        logp = model(torch.tensor([[*prompt, *answer]])).logits.log_softmax(-1)[0]
    expected = sum(float(logp[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))
    first = read_groups(tmp_path / "scored.jsonl")[0]
    assert first.parts[f"scored by {folder}"][0] == pytest.approx(expected, abs=1e-4)
    assert first.scores == (1.0, 0.0), "the labels of the data stay"
    assert first.parts["per_token"][0] == pytest.approx(expected / 2, abs=1e-4)


def test_a_reward_model_and_a_program_score_too(cli, models, pairs):
    code, out, err = cli("score", models / "rm", pairs, "--device", "cpu")
    assert code == 0, err
    assert "4 answers: mean" in out
    code, out, err = cli("score", "{kind: length, unit: words}", pairs)
    assert code == 0, err
    assert "4 answers: mean 1.25" in out, "1, 2, 1 and 1 words"


def test_labels_outlive_scoring_and_nobody_agrees_with_itself(cli, pairs, tmp_path):
    code, first, err = cli("score", "{kind: length, unit: words}", pairs, "--out", tmp_path / "a.jsonl")
    assert code == 0, err
    code, again, err = cli("score", "{kind: length, unit: words}", tmp_path / "a.jsonl", "--out", tmp_path / "b.jsonl")
    assert code == 0, err
    agrees = [next(line for line in out.splitlines() if line.startswith("agrees")) for out in (first, again)]
    assert agrees[0] == agrees[1], "both are against the labels"
    assert [g.scores for g in read_groups(tmp_path / "b.jsonl")] == [(1.0, 0.0)] * 2
    bare = [{"prompt": "red", "completion": "green blue"}, {"prompt": "blue", "completion": "red"}]
    (tmp_path / "bare.jsonl").write_text("".join(json.dumps(r) + "\n" for r in bare))
    code, out, err = cli("score", "{kind: length, unit: words}", tmp_path / "bare.jsonl", "--out", tmp_path / "c.jsonl")
    assert code == 0, err
    assert "the scores as its answers' own" in out
    assert [g.scores for g in read_groups(tmp_path / "c.jsonl")] == [(2.0,), (1.0,)]
    code, _, err = cli("score", "vader", tmp_path / "c.jsonl", "--out", tmp_path / "c.jsonl")
    assert code == 2
    assert "this file is what is read" in err


def test_scores_that_were_written_are_their_authors():
    mine = replace(group(2, 1), parts={"scored by me": (2.0, 1.0)})
    said = [Scores((3.0, 0.0))]
    assert not any("agrees" in line for line in summary([mine], said, "me"))
    assert summary([mine], said, "you")[-1] == "agrees with 1 of 1 pairs, as me ranks them (100.0%, 0 ties count half)"
    assert summary([group(1, 0)], said, "me")[-1] == "agrees with 1 of 1 pairs (100.0%, 0 ties count half)"


def test_a_misspelt_reward_is_not_looked_for_on_the_hub(cli, pairs):
    code, _, err = cli("score", "vadre", pairs)
    assert code == 2
    assert "did you mean 'vader'?" in err


def group(*scores):
    return Group(prompt=Prompt(content="p"), completions=(Completion(content="a"),) * len(scores), scores=scores)


def test_the_summary_counts_agreeing_pairs_and_unscored_answers():
    given = [group(1.0, 0.0), group(3.0, 2.0, 1.0), group(1.0, 1.0), group(1.0, 0.0)]
    scored = [Scores((5.0, 1.0)), Scores((1.0, 1.0, 2.0)), Scores((0.0, 9.0)), Scores((1.0, math.nan))]
    assert agreement(given, scored) == (1, 1, 4)
    lines = summary(given, scored)
    assert lines[0].startswith("9 answers: mean 2.5,")
    assert lines[1] == "1 could not be scored"
    assert lines[2] == "agrees with 1 of 4 pairs (37.5%, 1 ties count half)"
    (alone,) = summary([group(1.0)], [Scores((math.nan,))])
    assert alone == "none of 1 answers could be scored (what compares answers needs two or more to a prompt)"
    assert summary([group(1.0, 0.0)], [Scores((math.nan,) * 2)]) == ["none of 2 answers could be scored"]


def test_a_prompt_ends_at_a_line_break_and_nowhere_else(tmp_path):
    from evenhand.cli.models import read_prompts

    (tmp_path / "p.txt").write_bytes("one\u2028line\x0b and\x85 all\r\n\ntwo".encode())
    found = read_prompts(tmp_path / "p.txt")
    assert [p.content for p in found] == ["one\u2028line\x0b and\x85 all", "two"]
