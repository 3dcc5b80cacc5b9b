"""A model out of a run: what is written, what plain transformers makes of it, and what happens when the copy is not the model."""

from __future__ import annotations

import hashlib
import json
import math
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, GenerationConfig

from evenhand.data.jsonl import read_groups, write_groups
from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.export import check_scores
from evenhand.export import model as exporting
from evenhand.export.folder import write_model
from evenhand.export.model import export
from evenhand.export.subject import find_arm, find_reward_model
from evenhand.models.load import load_tokenizer


@pytest.fixture(scope="module")
def exported(tiny, tmp_path_factory) -> Path:
    return export(find_arm(tiny, "dpo", 1), tmp_path_factory.mktemp("out") / "model", device="cpu").folder


def test_plain_transformers_gives_the_runs_log_probs_and_stops_where_the_run_stops(tiny, exported):
    run, plain = (AutoModelForCausalLM.from_pretrained(f) for f in (tiny / "arms" / "dpo" / "seed-1" / "model", exported))
    ids = torch.tensor([[2, 4, 7, 9, 6, 5, 8, 10]])
    assert torch.equal(run(ids).logits, plain(ids).logits)
    tokenizer = AutoTokenizer.from_pretrained(exported)
    assert tokenizer.convert_tokens_to_ids(["<eos>", "<|end|>"]) == [3, 6]
    assert run.generation_config.eos_token_id == 3, "what the run saved would never stop at the end of a turn"
    assert GenerationConfig.from_pretrained(exported).eos_token_id == [3, 6]
    answers = read_groups(tiny / "generations" / "dpo" / "seed-1" / "generations.jsonl")
    assert any(g.completions[0].tokens[-1] == 6 for g in answers), "answers of this run do end there"


def test_the_generation_config_is_how_it_was_judged_not_how_the_base_came(own_run, tmp_path):
    config = own_run / "arms" / "dpo" / "seed-0" / "model" / "generation_config.json"
    config.write_text(json.dumps({"repetition_penalty": 1.7, "temperature": 0.3, "do_sample": True, "eos_token_id": 3}))
    out = export(find_arm(own_run, "dpo", 0), tmp_path / "out", device="cpu").folder
    written = GenerationConfig.from_pretrained(out)
    assert (written.do_sample, written.temperature, written.top_p, written.top_k) == (True, 0.8, 0.9, 0)
    assert written.repetition_penalty in (None, 1.0)


def test_the_record_names_every_file_by_its_hash(exported):
    record = json.loads((exported / "evenhand.json").read_text())
    weights = (exported / "model.safetensors").read_bytes()
    assert record["files"]["model.safetensors"] == hashlib.sha256(weights).hexdigest()
    assert {"config.json", "generation_config.json", "tokenizer.json", "chat_template.jinja"} <= set(record["files"])
    assert (record["arm"], record["seed"], record["method"], record["dtype"]) == ("dpo", 1, "dpo", "float32")
    assert record["stop_ids"] == [3, 6]
    assert record["check"]["prompts"] == 6
    assert record["check"]["max_dlogp"] < 1e-4
    assert record["check"]["greedy_same"] == 6


def test_everyone_may_read_the_files(exported):
    for path in (exported, *exported.iterdir()):
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644), path.name


def test_older_readers_find_their_spellings(exported):
    config, tokenizer = (json.loads((exported / f).read_text()) for f in ("config.json", "tokenizer_config.json"))
    assert config["rope_parameters"]["rope_theta"] == config["rope_theta"] == 50000.0
    assert config["dtype"] == config["torch_dtype"] == "float32"
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert tokenizer["additional_special_tokens"] == ["<|user|>", "<|assistant|>", "<|end|>"]
    assert tokenizer["model_input_names"] == ["input_ids", "attention_mask"]
    assert not {"extra_special_tokens", "is_local", "local_files_only"} & set(tokenizer)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_narrower_precision_is_checked_to_its_own_tolerance(tiny, tmp_path, dtype):
    said: list[str] = []
    made = export(find_arm(tiny, "dpo", 0), tmp_path / "out", dtype=dtype, device="cpu", say=said.append)
    kept = load_file(made.folder / "model.safetensors")
    assert {str(t.dtype) for t in kept.values()} == {f"torch.{dtype}"}
    run = load_file(tiny / "arms" / "dpo" / "seed-0" / "model" / "model.safetensors")
    assert all(torch.equal(run[k].to(kept[k].dtype), kept[k]) for k in run)
    assert made.checked.numbers["computes"] == dtype
    assert made.checked.numbers["max_dlogp"] > 1e-5, "rounding shows"
    assert f"{dtype} may differ by" in "\n".join(said)
    assert "the run has float32" in said[0]


def test_bfloat16_weights_widened_are_the_same_weights(own_run, tmp_path):
    first = export(find_arm(own_run, "dpo", 0), tmp_path / "narrow", dtype="bfloat16", device="cpu").folder
    place = own_run / "arms" / "dpo" / "seed-0" / "model"
    for name in ("config.json", "model.safetensors"):
        (place / name).unlink()
        (place / name).write_bytes((first / name).read_bytes())
    made = export(find_arm(own_run, "dpo", 0), tmp_path / "wide", dtype="float32", device="cpu")
    assert made.checked.numbers["computes"] == "float32", "nothing is lost by widening, so nothing is forgiven"


def test_weights_that_half_precision_cannot_hold_are_refused(own_run, tmp_path):
    change_weights(own_run / "arms" / "dpo" / "seed-0" / "model", "model.norm.weight", lambda t: t * 1e6)
    with pytest.raises(UserError, match="not finite in float16") as refused:
        export(find_arm(own_run, "dpo", 0), tmp_path / "out", dtype="float16", device="cpu")
    assert "model.norm.weight" in refused.value.what
    assert "6.55e+04" in refused.value.why
    assert not (tmp_path / "out").exists()


def test_an_unknown_precision(tiny, tmp_path):
    with pytest.raises(UserError, match="unknown precision 'float8'"):
        export(find_arm(tiny, "dpo", 0), tmp_path / "out", dtype="float8")


# a copy that is not the model -------------------------------------------------------------------------------------------


def change_weights(folder: Path, name: str, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors[name] = change(tensors[name]).contiguous()
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def change_json(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("{% if add_generation_prompt %}", " {% if add_generation_prompt %}"))


DAMAGE = {
    "a weight": (lambda f: change_weights(f, "model.norm.weight", lambda t: t * 1.02), "log-probs differ by up to"),
    "a NaN": (lambda f: change_weights(f, "model.norm.weight", lambda t: t * torch.nan), "log-probs differ"),
    "the rotary base": (
        lambda f: change_json(f / "config.json", rope_theta=1e4, rope_parameters={"rope_type": "default", "rope_theta": 1e4}),
        "log-probs differ",
    ),
    "a stop token": (lambda f: change_json(f / "generation_config.json", eos_token_id=3), r"stop ids are \[3\], not \[3, 6\]"),
    "the template": (change_template, "the chat template differs"),
    "a special token": (lambda f: change_json(f / "tokenizer_config.json", eos_token="<unk>"), "special tokens differ"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_a_copy_that_differs_is_not_kept_and_says_what_differs(tiny, tmp_path, monkeypatch, what):
    damage, message = DAMAGE[what]

    def damaged(subject, renderer, folder, dtype):
        kept = write_model(subject, renderer, folder, dtype)
        damage(folder)
        return kept

    monkeypatch.setattr(exporting, "write_model", damaged)
    with pytest.raises(UserError, match=message) as found:
        export(find_arm(tiny, "dpo", 0), tmp_path / "out", device="cpu")
    assert "nothing was written" in found.value.why
    assert list(tmp_path.iterdir()) == []


def test_the_check_asks_the_engine_that_sampled_the_runs_answers(own_run, tmp_path):
    """It is the user's, from the run's plugins, and leaves a line for every call."""
    plugin, calls = tmp_path / "own_engine.py", tmp_path / "calls"
    plugin.write_text(
        "from evenhand.engines.local import LocalEngine\n"
        "from evenhand.engines.registry import engine\n\n\n"
        "@engine('noted')\n"
        "class Noted:\n"
        "    def __init__(self, opened, notes: str):\n"
        "        self.local, self.notes = LocalEngine(opened.policy, opened.renderer), notes\n\n"
        "    def generate(self, prompts, n, sampling, **more):\n"
        "        with open(self.notes, 'a') as file:\n"
        "            file.write(f'{len(prompts)} x {n}\\n')\n"
        "        return self.local.generate(prompts, n, sampling, **more)\n"
    )
    written = json.loads((own_run / "experiment.json").read_text())
    written["effective"] |= {"engine": {"kind": "noted", "notes": str(calls)}, "plugins": [str(plugin)]}
    (own_run / "experiment.json").write_text(json.dumps(written))
    export(find_arm(own_run, "dpo", 0), tmp_path / "out", prompts=4, device="cpu")
    assert calls.read_text() == "4 x 1\n"


def test_a_greedy_answer_may_part_at_a_tie_and_nowhere_else(tiny):
    """The second best first token instead of the best: refused by its gap, allowed where that is within the tolerance."""
    from evenhand.export.check import greedy_gaps, sampled_answers
    from evenhand.models.load import load_policy

    subject = find_arm(tiny, "dpo", 0)
    renderer = Renderer(load_tokenizer(subject.model))
    policy = load_policy(subject.model, device="cpu")
    policy.eval()
    tokens = [renderer.tokenise(g, max_prompt=16, max_completion=None) for g in sampled_answers(subject, 1)]
    logp = policy.hf(torch.tensor([tokens[0].prompt])).logits[0, -1].log_softmax(-1)
    (best, second), order = logp.detach().topk(2)
    gap = float(best - second)
    other = [(int(order[1]),)]
    assert greedy_gaps(policy, renderer, subject, tokens, other, gap + 1e-3, "cpu") == [pytest.approx(gap, abs=1e-4)]
    with pytest.raises(UserError, match="part at token 0"):
        greedy_gaps(policy, renderer, subject, tokens, other, gap - 1e-3, "cpu")
    with pytest.raises(UserError, match="have 0 tokens"):
        greedy_gaps(policy, renderer, subject, tokens, [()], 1.0, "cpu")


def test_nothing_is_replaced(tiny, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    with pytest.raises(UserError, match="exists already"):
        export(find_arm(tiny, "dpo", 0), tmp_path / "out", device="cpu")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


# reward models ----------------------------------------------------------------------------------------------------------


def test_a_reward_model_gives_its_logit_to_plain_transformers(tiny, tmp_path):
    made = export(find_reward_model(tiny, "rm"), tmp_path / "out", device="cpu")
    run, plain = (
        AutoModelForSequenceClassification.from_pretrained(f) for f in (tiny / "reward_models" / "rm" / "model", made.folder)
    )
    ids = torch.tensor([[2, 4, 7, 6, 5, 9, 6]])
    assert plain.config.num_labels == 1
    assert run(ids).logits.item() == plain(ids).logits.item() != 0.0
    assert json.loads((made.folder / "reward_normalisation.json").read_text()) == {"shift": 0.5, "scale": 2.0}
    assert made.checked.numbers["max_dscore"] < 1e-4


@pytest.mark.parametrize("what", ["the head", "padding"])
def test_a_reward_model_that_scores_otherwise_is_not_kept(tiny, tmp_path, monkeypatch, what):
    def damaged(subject, renderer, folder, dtype):
        kept = write_model(subject, renderer, folder, dtype)
        if what == "the head":
            change_weights(folder, "score.weight", lambda t: t * 1.05)
        else:  # the end of a turn as padding: padded rows are then read one token early
            change_json(folder / "config.json", pad_token_id=6)
        return kept

    monkeypatch.setattr(exporting, "write_model", damaged)
    with pytest.raises(UserError, match="scores differ by up to"):
        export(find_reward_model(tiny, "rm"), tmp_path / "out", device="cpu")
    assert list(tmp_path.iterdir()) == []


def test_a_score_that_is_no_number_is_not_lost_among_the_others(tiny, tmp_path, monkeypatch):
    real = check_scores.listen

    def broken_at_the_end(*given):
        alone, padded = real(*given)
        return alone, [*padded[:-1], [math.nan]]

    monkeypatch.setattr(check_scores, "listen", broken_at_the_end)
    with pytest.raises(UserError, match="scores differ by up to nan"):
        export(find_reward_model(tiny, "rm"), tmp_path / "out", device="cpu")


def test_an_answer_cut_behind_a_sampled_padding_token_is_no_test_of_a_classifier(own_run, tmp_path):
    path = own_run / "generations" / "dpo" / "seed-0" / "generations.jsonl"
    groups = read_groups(path)
    padded = replace(groups[0], completions=(replace(groups[0].completions[0], tokens=(8, 9, 0), behaviour_logp=None),))
    for place in own_run.glob("generations/*/seed-*/generations.jsonl"):
        write_groups(place, [padded, *groups[1:3]])
    made = export(find_reward_model(own_run, "rm"), tmp_path / "out", device="cpu")
    assert made.checked.numbers["prompts"] == 2
    for place in own_run.glob("generations/*/seed-*/generations.jsonl"):
        write_groups(place, [padded])
    with pytest.raises(UserError, match="no answers to check with"):
        export(find_reward_model(own_run, "rm"), tmp_path / "more", device="cpu")
