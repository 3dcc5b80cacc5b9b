"""Reward models that exist before the run: broken ones are caught by name, healthy ones raise no alarm."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from evenhand.data.jsonl import write_groups
from evenhand.doctor import Severity
from tests.doctor.patients import TEMPLATE, Ward, byte_tokenizer, plain

OTHER = TEMPLATE.replace("'<|' + m.role + '|>'", "m.role + ': '")
ALARMS = (Severity.FAIL, Severity.WARN)
CASES: dict[str, tuple[Callable[[Ward], None], str, str, Severity, bool]] = {}


def case(id: str, words: str, severity: Severity = Severity.FAIL, *, quick: bool = True):
    def register(break_it: Callable[[Ward], None]) -> Callable[[Ward], None]:
        CASES[break_it.__name__] = (break_it, id, words, severity, quick)
        return break_it

    return register


@pytest.mark.parametrize("name", CASES)
def test_it_is_caught(name: str, tmp_path: Path) -> None:
    break_it, id, words, severity, quick = CASES[name]
    ward = Ward(tmp_path)
    break_it(ward)
    result = ward.examine(quick=quick, only=[id])[id]
    found = [(f.severity, f.seen) for f in result.findings if words in f.seen]
    assert found, f"{id} says {[f.seen for f in result.findings]} ({result.skipped})"
    assert severity in {s for s, _ in found}


def _config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@case("R8", "reward_models.rm: the model has 2 labels, a reward model has one")
def two_labels(ward: Ward) -> None:
    _config(ward.classifier(byte_tokenizer()), id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1})


@case("R8", "LlamaForCausalLM, not a sequence classifier")
def a_policy(ward: Ward) -> None:
    ward.classifier(byte_tokenizer())
    _config(ward.folder / "trunk", num_labels=1)
    ward.experiment["reward_models"]["rm"]["path"] = str(ward.folder / "trunk")


@case("R8", "the weights of its head, score.weight, are missing")
def a_head_that_was_not_saved(ward: Ward) -> None:
    from safetensors.torch import load_file, save_file

    file = ward.classifier(byte_tokenizer()) / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if k != "score.weight"}, file, metadata={"format": "pt"})


@case("R8", "score.weight", quick=False)
def a_head_that_was_not_saved_seen_by_opening_it(ward: Ward) -> None:
    a_head_that_was_not_saved(ward)


@case("R8", "the weights are pickled")
def pickled_weights(ward: Ward) -> None:
    folder = ward.classifier(byte_tokenizer())
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@case("R8", "its tokenizer has")
def a_tokenizer_larger_than_the_reward_model(ward: Ward) -> None:
    folder = ward.classifier(byte_tokenizer())
    larger = byte_tokenizer()
    larger.add_tokens(["one", "more"])
    larger.save_pretrained(folder)


@case("R8", "it is not causal", quick=False)
def an_encoder_that_pools_its_first_token(ward: Ward) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    folder, tokenizer = ward.folder / "rm", byte_tokenizer()
    ward.classifier(tokenizer)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), num_labels=1, **shape)).save_pretrained(folder)


@case("R5", "no chat template")
def conversations_for_a_model_without_a_template(ward: Ward) -> None:
    folder = ward.classifier(byte_tokenizer())
    byte_tokenizer(None).save_pretrained(folder)
    (folder / "chat_template.jinja").unlink(missing_ok=True)


@case("R5", "unknown chat template 'tulo'")
def a_misspelt_template(ward: Ward) -> None:
    conversations_for_a_model_without_a_template(ward)
    ward.experiment["reward_models"]["rm"]["template"] = "tulo"


@case("R5", "trained on conversations, and 64 of 64", Severity.WARN)
def texts_for_a_model_of_conversations(ward: Ward) -> None:
    ward.classifier(byte_tokenizer())
    ward.rows = [{"prompt": f"{i}. Well?", "chosen": f" good {i}", "rejected": f" poor {i}"} for i in range(80)]


@case("R5", "exceed its context of 16 tokens", Severity.WARN)
def a_context_shorter_than_the_data(ward: Ward) -> None:
    ward.classifier(byte_tokenizer(), max_position_embeddings=16)


@case("R5", "are unknown to it")
def a_reward_model_for_another_language(ward: Ward) -> None:
    from evenhand.worlds.tokenizer import word_tokenizer

    ward.classifier(word_tokenizer(["the quick brown fox"]))


@case("R4", "no better than chance", quick=False)
def a_reward_model_that_knows_nothing(ward: Ward) -> None:
    _many(ward)
    ward.classifier(byte_tokenizer())
    _score(ward, "mild", "mild")


@case("R4", "0% of", quick=False)
def a_reward_model_with_its_sign_flipped(ward: Ward) -> None:
    _many(ward)
    ward.classifier(byte_tokenizer())
    _score(ward, "p", "g")


@case("R4", "too few pairs", Severity.WARN, quick=False)
def few_held_out_pairs(ward: Ward) -> None:
    ward.classifier(byte_tokenizer())
    _score(ward, "mild", "mild")


def _many(ward: Ward) -> None:
    from tests.doctor.patients import pairs

    ward.rows = pairs(160)


def _score(ward: Ward, better: str, worse: str) -> None:
    """Rows whose answers begin with these words, for a model that scores by the count of one letter: see `lettered`."""
    for i, row in enumerate(ward.rows):
        row["chosen"][0]["content"] = f"{better} {i % 7}"
        row["rejected"][0]["content"] = f"{worse} {(i + 3) % 7}"


@pytest.fixture(autouse=True)
def lettered(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the model scores is set by hand where accuracy is the matter: the difference of two letters, and a digit's noise."""
    from evenhand.rewards.external import TextReward
    from evenhand.types import Scores

    real = TextReward.__call__

    def by_letters(self, groups):
        if not any(c.text[:2] in ("mi", "p ", "g ") for g in groups for c in g.completions):
            return real(self, groups)
        return [Scores(tuple(c.text.count("g") - c.text.count("p") + _noise(c.text, g) for c in g.completions)) for g in groups]

    monkeypatch.setattr(TextReward, "__call__", by_letters)


def _noise(text: str, group) -> float:
    return 0.01 * (int(text[-1]) if int(group.prompt.id, 16) % 2 else -int(text[-1]))


def healthy(ward: Ward) -> None:
    """A reward model with another template, whose scores agree with the labels."""
    _many(ward)
    ward.classifier(byte_tokenizer(OTHER))
    ward.experiment["judge"] = {"reward": "rm"}
    _score(ward, "g", "p")


def test_a_healthy_one_raises_no_alarm(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    healthy(ward)
    diagnosis = ward.examine(quick=False, only=["R1", "R2", "R4", "R5", "R8"])
    assert plain(diagnosis, ALARMS) == []
    seen = {r.check.id: " ".join(f.seen for f in r.findings) for r in diagnosis.results}
    assert "right in 100% of" in seen["R4"]
    assert "the policy's vocabulary: answers are decoded" in seen["R5"]
    (example,) = diagnosis["R5"].findings[0].examples
    assert "user: Tell me about" in example
    assert "assistant: g " in example


def test_the_quick_form_opens_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ward = Ward(tmp_path)
    ward.classifier(byte_tokenizer())
    monkeypatch.setattr("evenhand.models.load.load_reward_model", lambda *a, **k: pytest.fail("opened"))
    monkeypatch.setattr("evenhand.stages.common.load_reward_model", lambda *a, **k: pytest.fail("opened"))
    diagnosis = ward.examine()
    assert plain(diagnosis, ALARMS) == []
    assert any("is a reward model" in f.seen for f in diagnosis["R8"].findings)


def test_scores_of_an_earlier_run_are_read(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.experiment["reward_models"] = {"rm": {"train": {"steps": 2}}}
    diagnosis = ward.examine(quick=False, only=["R4"])
    assert "no reward model exists yet" in diagnosis["R4"].skipped
    run = diagnosis.patient.run
    node = run.plan[next(iter(run.plan.reward_models["rm"].values()))]
    with run.store.open(node.key, {}) as out:
        assert out is not None
        scores = {"chosen": [1.0] * 60, "rejected": [0.0] * 60, "chosen_chars": [5] * 60, "rejected_chars": [5] * 60}
        (out / "scores.json").write_text(json.dumps(scores))
        write_groups(out / "unused.jsonl", [])
    (finding,) = ward.examine(quick=False, only=["R4"])["R4"].findings
    assert finding.severity is Severity.INFO
    assert "right in 100% of 60 held-out pairs" in finding.seen
