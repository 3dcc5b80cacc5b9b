"""Models in and out of folders: nothing lost on the way, nothing half written, every refusal names its reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from evenhand.errors import UserError
from evenhand.models.load import load_policy, load_reward_model, load_tokenizer, new_policy, reward_model_from, save
from evenhand.models.policy import Policy
from tests.models.tiny_networks import COMMON, a_batch, assert_same_weights, character_tokenizer, network

QWEN = {"model_type": "qwen2", **{k: v for k, v in COMMON.items() if not k.endswith("_token_id") and k != "vocab_size"}}


@pytest.fixture
def tokenizer():
    return character_tokenizer()


@pytest.fixture
def saved(tmp_path) -> Path:
    save(Policy(network("llama")), None, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "gpt_neox", "cohere2"])
def test_saving_and_loading_is_the_identity(tmp_path, kind):
    policy, batch = Policy(network(kind)), a_batch()
    save(policy, None, tmp_path / "a")
    again = load_policy(tmp_path / "a", device="cpu")
    assert again.layout_mode == "tree"
    assert {n: p.dtype for n, p in again.hf.named_parameters()} == {n: p.dtype for n, p in policy.hf.named_parameters()}
    assert_same_weights(again, policy)
    torch.testing.assert_close(again(batch).logp, policy(batch).logp, rtol=1e-5, atol=1e-6)  # see `assert_same_weights`
    save(again, None, tmp_path / "b")
    for file in sorted(p.name for p in (tmp_path / "a").iterdir()):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


def test_a_folder_holds_what_others_need(tmp_path, tokenizer):
    from transformers import AutoModelForCausalLM

    tokenizer.chat_template = "{{ messages }}"
    policy = new_policy(QWEN, tokenizer, seed=0)
    save(policy, tokenizer, tmp_path / "model")
    names = {p.name for p in (tmp_path / "model").iterdir()}
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= names
    assert not [n for n in names if n.endswith((".bin", ".pt"))]
    assert "evenhand" not in (tmp_path / "model" / "config.json").read_text()
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), policy.hf.parameters(), strict=True))
    assert load_tokenizer(tmp_path / "model").chat_template == "{{ messages }}"
    assert [p.name for p in tmp_path.iterdir()] == ["model"], "nothing temporary is left"


def test_plain_generate_on_a_saved_model_ends_where_our_answers_end(tmp_path):
    """The greedy second token is made a stop: `generate` must end there, and so must anybody who reads the folder."""
    from transformers import AutoModelForCausalLM

    policy = Policy(network("llama"))
    prompt = torch.tensor([[5, 6, 7]])
    first, second = policy.hf.generate(prompt, do_sample=False, max_new_tokens=2, eos_token_id=None)[0, 3:].tolist()
    unused = next(i for i in range(8, 20) if i not in (first, second))
    for number, stops in enumerate(({second}, {second, unused})):
        save(policy, None, tmp_path / str(number), stop_ids=stops)
        plain = AutoModelForCausalLM.from_pretrained(tmp_path / str(number))
        answer = plain.generate(prompt, do_sample=False, max_new_tokens=9)[0, 3:].tolist()
        assert answer == [first, second][: len(answer)]
        assert answer[-1] == second
    assert all(p.stat().st_mode & 0o444 == 0o444 for p in (tmp_path / "0").iterdir()), "everyone may read it"


def test_dtype(saved):
    assert load_policy(saved, device="cpu").dtype == torch.float32
    assert load_policy(saved, device="cpu", dtype="bfloat16").dtype == torch.bfloat16
    with pytest.raises(UserError, match="bfloat16"):
        load_policy(saved, dtype="bfloat15")


def test_a_new_policy_follows_its_seed_and_tokenizer_and_leaves_the_global_state_alone(tokenizer):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (new_policy(QWEN, tokenizer, seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert one.hf.config.vocab_size == len(tokenizer)
    assert one.hf.config.eos_token_id == tokenizer.eos_token_id
    first, second, third = (next(p.hf.parameters()) for p in (one, same, other))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_a_failed_save_leaves_the_old_model(saved, monkeypatch):
    before = {p.name: p.read_bytes() for p in saved.iterdir()}
    policy = Policy(network("llama"))

    def full_disk(folder):
        (Path(folder) / "config.json").write_text("{}")
        raise OSError("no space left")

    monkeypatch.setattr(policy.hf, "save_pretrained", full_disk)
    with pytest.raises(OSError, match="no space"):
        save(policy, None, saved)
    assert {p.name: p.read_bytes() for p in saved.iterdir()} == before
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def test_saving_over_a_folder_replaces_all_of_it(saved):
    (saved / "leftover.txt").write_text("old")
    save(Policy(network("llama")), None, saved)
    assert not (saved / "leftover.txt").exists()
    assert [p.name for p in saved.parent.iterdir()] == ["model"]


def test_missing_folders_and_files_are_named(saved, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        load_policy(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no \*.safetensors"):
        load_policy(tmp_path / "empty")
    with pytest.raises(UserError, match=r"no config.json"):
        load_tokenizer(tmp_path / "empty")
    with pytest.raises(UserError, match="organisation/no-such-model"):
        load_policy("organisation/no-such-model")
    (saved / "config.json").unlink()
    with pytest.raises(UserError, match=r"no config.json"):
        load_policy(saved)


def test_pickled_weights_are_refused(saved):
    (saved / "model.safetensors").rename(saved / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pickled \(pytorch_model.bin\)"):
        load_policy(saved)


def test_missing_weights_are_an_error_not_a_random_draw(saved):
    from safetensors.torch import load_file, save_file

    tensors = load_file(saved / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"model.layers.1.mlp.up_proj.weight"):
        load_policy(saved)
    with pytest.raises(UserError, match=r"1 weights are missing"):
        reward_model_from(saved, seed=0)


def test_code_in_a_folder_does_not_run(saved, tmp_path):
    (saved / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    config = json.loads((saved / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}}
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError):
        load_policy(saved)
    assert not (tmp_path / "ran").exists()


def test_a_policy_is_not_a_reward_model(saved):
    with pytest.raises(UserError, match="2 labels"):
        load_reward_model(saved)


def test_an_unknown_architecture_gets_a_hint():
    with pytest.raises(UserError, match="'llama'"):
        new_policy({"model_type": "lama"}, None, seed=0)
    with pytest.raises(UserError, match="a qwen2 has no 'hiden_size'"):
        new_policy(QWEN | {"hiden_size": 16}, None, seed=0)


@pytest.mark.parametrize("name", ["stories260K", "babyllama-tok361"])
def test_real_models_load(real_data, name):
    folder = real_data / "models" / name
    policy, tokenizer = load_policy(folder), load_tokenizer(folder)
    assert policy.layout_mode == "tree"
    ids = tokenizer("Once upon a time, there was a little girl")["input_ids"]
    logp = policy.hf(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    nats = -logp[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].mean()
    assert nats < 3, "a trained model predicts a story's first words far better than chance"


def test_a_reward_model_is_no_policy_although_no_weight_is_missing(tmp_path):
    """Its head is tied to the embedding: transformers would make a language model of it without a word."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    hf = AutoModelForSequenceClassification.from_config(
        AutoConfig.for_model("llama", **COMMON, num_labels=1, tie_word_embeddings=True)
    )
    hf.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="these are the weights of a LlamaForSequenceClassification"):
        load_policy(tmp_path, device="cpu")
