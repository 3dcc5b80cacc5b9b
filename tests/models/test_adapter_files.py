"""Adapters in peft's format: ours load elsewhere, others' load here, and what is missing is said."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.models import adapter_files
from evenhand.models.adapter_config import Adapter
from evenhand.models.adapter_models import save_adapted
from evenhand.models.adapters import attach
from evenhand.models.load import load_policy, load_tokenizer, merge_adapter, save
from evenhand.models.policy import Policy
from evenhand.spec.read import read_experiment
from evenhand.stages.base import BaseSpec, ModelSource
from evenhand.stages.common import model_path
from evenhand.stages.pretrained_reward_model import PretrainedRewardModelSpec
from tests.models.test_adapters import a_reward_model, moved
from tests.models.tiny_networks import a_batch, character_tokenizer, network, plain_logp, rows_of, token_groups
from tests.stages.performed import perform, setup

CASES = {
    "llama": ("llama", ()), "gpt2": ("gpt2", ()), "a head of its own": ("llama", ("lm_head", "embed_tokens")),
    "tied": ("gemma2", ("embed_tokens",)), "tied, named by its other end": ("gemma2", ("lm_head",)),
    "experts": ("qwen3_moe", ("experts",)),
    "dora": ("llama", (), "dora"), "dora, transposed": ("gpt2", (), "dora"), "dora with biases": ("gpt_neox", (), "dora"),
}  # fmt: skip
PLAIN = "eager"
"""Attention that every version computes in full: transformers 5.10 runs Gemma 2 by sdpa, which forgets the soft cap."""


def from_transformers(folder: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation=PLAIN)


def written(folder: Path, kind: str = "llama", whole: tuple[str, ...] = (), form="lora") -> Policy:
    """A start, and an adapter on it that is not zero; the trained policy."""
    policy = Policy(network(kind))
    save(policy, character_tokenizer(), folder / "start")
    attach(policy, Adapter(form=form, rank=4, alpha=8.0, modules_to_save=whole), seed=0)
    adapter_files.write(moved(policy), folder / "adapter", start=folder / "start")
    return policy


def says(model, batch=None) -> torch.Tensor:
    return model(a_batch() if batch is None else batch).logp.detach()


@pytest.mark.parametrize("case", CASES)
def test_an_adapter_is_the_same_policy_everywhere(case, tmp_path):
    """On the start by peft, merged in memory, and merged into a folder: within 1e-5 nats of the trained network."""
    trained = written(tmp_path, *CASES[case])
    expected, groups = says(trained), token_groups()
    with torch.no_grad():
        elsewhere = plain_logp(
            peft.PeftModel.from_pretrained(from_transformers(tmp_path / "start"), tmp_path / "adapter"), groups
        )
    for found, row in zip(elsewhere, rows_of(expected, groups), strict=True):
        assert_close(found, row, rtol=1e-5, atol=1e-5)
    loaded = load_policy(tmp_path / "adapter")
    assert loaded.head_mode == "fused", "the head is read as fast as the start's"
    assert_close(says(loaded), expected, rtol=1e-5, atol=1e-5)
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    assert_close(says(load_policy(tmp_path / "merged")), expected, rtol=1e-5, atol=1e-5)
    assert load_tokenizer(tmp_path / "adapter").get_vocab() == character_tokenizer().get_vocab(), "the base's, where it has none"


def test_the_same_bytes_every_time(tmp_path):
    """peft keeps target modules in a set, whose order is another in every process."""
    written(tmp_path)
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert (config["r"], config["lora_alpha"], config["task_type"]) == (4, 8, "CAUSAL_LM")
    assert config["base_model_name_or_path"] == str((tmp_path / "start").resolve())
    shapes = {k: tuple(t.shape) for k, t in load_file(tmp_path / "adapter/adapter_model.safetensors").items()}
    assert shapes["base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"] == (4, 48)
    assert shapes["base_model.model.model.layers.0.mlp.down_proj.lora_B.weight"] == (32, 4)
    assert len(shapes) == 2 * 2 * 7


@pytest.mark.parametrize("more", [{}, {"use_dora": True}, {"layers_to_transform": [1]}, {"modules_to_save": ["lm_head"]}])
def test_adapters_of_other_tools_load(more, tmp_path):
    """Made by peft alone: DoRA, some layers only, a head beside it."""
    save(Policy(network("llama")), character_tokenizer(), tmp_path / "start")
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM", **more)
    made = peft.get_peft_model(from_transformers(tmp_path / "start"), config)
    made.save_pretrained(tmp_path / "adapter")
    groups = token_groups()
    with torch.no_grad():
        expected = plain_logp(made, groups)
    for found, row in zip(rows_of(says(load_policy(tmp_path / "adapter")), groups), expected, strict=True):
        assert_close(found, row, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("at_home", [False, True])
def test_a_file_that_was_half_written_is_named(name, at_home, tmp_path):
    """Of an adapter from elsewhere, and of one that was trained here."""
    policy = written(tmp_path)
    if at_home:
        save_adapted(policy, character_tokenizer(), tmp_path / "adapter", start=tmp_path / "start")
    file = tmp_path / "adapter" / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=f"{name} is damaged"):
        load_policy(tmp_path / "adapter")


def test_a_model_that_was_half_written_is_named(tmp_path):
    written(tmp_path)
    file = tmp_path / "start/model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="Error while deserializing header"):
        load_policy(tmp_path / "start")


def test_a_base_from_the_hub_is_called_by_its_name_there():
    assert adapter_files.base_name(Path("/c/models--org--a-b/snapshots/0ab1")) == ("org/a-b", "0ab1")
    assert adapter_files.base_name(Path("/c/models--gpt2/snapshots/0ab1")) == ("gpt2", "0ab1")


def test_half_precision_is_merged_in_full_and_rounded_once(tmp_path):
    policy = Policy(network("llama").bfloat16())
    save(policy, character_tokenizer(), tmp_path / "start")
    attach(policy, Adapter(rank=4, alpha=8.0), seed=0)
    adapter_files.write(moved(policy), tmp_path / "adapter", start=tmp_path / "start")
    save(policy, None, tmp_path / "model")
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    name = "model.layers.0.self_attn.q_proj"
    tensors, start = load_file(tmp_path / "adapter/adapter_model.safetensors"), load_file(tmp_path / "start/model.safetensors")
    a, b = (tensors[f"base_model.model.{name}.lora_{part}.weight"].float() for part in "AB")
    expected = (start[f"{name}.weight"].float() + 2.0 * b @ a).bfloat16()
    for folder in ("model", "merged"):
        found = load_file(tmp_path / folder / "model.safetensors")[f"{name}.weight"]
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, expected)


def test_embeddings_that_grew_come_with_the_adapter(tmp_path):
    """New tokens, embeddings trained and saved; the base has fewer rows."""
    save(Policy(network("llama")), character_tokenizer(), tmp_path / "start")
    hf = from_transformers(tmp_path / "start")
    hf.resize_token_embeddings(101)
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"], init_lora_weights=False)
    made = peft.get_peft_model(hf, config)
    made.save_pretrained(tmp_path / "adapter")
    with torch.no_grad():
        expected = made(input_ids=torch.tensor([[98, 5, 100]])).logits
    found = load_policy(tmp_path / "adapter").hf
    assert found.config.vocab_size == 101
    with torch.no_grad():
        assert_close(found(input_ids=torch.tensor([[98, 5, 100]])).logits, expected, rtol=1e-4, atol=1e-5)


def test_tokens_without_embeddings_are_refused(tmp_path):
    """T8: the tokenizer beside the adapter was extended, its embeddings were not saved."""
    written(tmp_path)
    longer = character_tokenizer()
    longer.add_tokens([f"<new{i}>" for i in range(80)])
    longer.save_pretrained(tmp_path / "adapter")
    with pytest.raises(UserError, match="110 tokens, the base 97 embeddings"):
        load_policy(tmp_path / "adapter")


def edit(folder: Path, **named) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | named))


def test_a_base_that_is_not_here_is_said_once(tmp_path):
    written(tmp_path)
    edit(tmp_path / "adapter", base_model_name_or_path="/gone/far")
    with pytest.raises(UserError, match=r"(?s)base of this adapter cannot be found.*no folder /gone/far.*model\.base"):
        load_policy(tmp_path / "adapter")
    merge_adapter(tmp_path / "adapter", tmp_path / "merged", base=str(tmp_path / "start"))
    assert says(load_policy(tmp_path / "merged")).isfinite().all()
    edit(tmp_path / "adapter", base_model_name_or_path=str(tmp_path))
    with pytest.raises(UserError, match=r"(?s)base of this adapter cannot be found.*no .*safetensors"):
        load_policy(tmp_path / "adapter")
    edit(tmp_path / "adapter", base_model_name_or_path=None)
    with pytest.raises(UserError, match="none is named"):
        load_policy(tmp_path / "adapter")


def test_a_base_of_another_shape_is_refused(tmp_path):
    written(tmp_path)
    save(Policy(network("llama", hidden_size=16)), character_tokenizer(), tmp_path / "other")
    edit(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "other"))
    with pytest.raises(UserError, match="does not fit its base"):
        load_policy(tmp_path / "adapter")
    save(Policy(network("llama", num_hidden_layers=1)), character_tokenizer(), tmp_path / "shorter")
    edit(tmp_path / "adapter", base_model_name_or_path=str(tmp_path / "shorter"))
    with pytest.raises(UserError, match="fit nowhere"):
        load_policy(tmp_path / "adapter")


def test_weights_that_are_missing_are_refused(tmp_path):
    """M6: peft would draw them at random and warn."""
    written(tmp_path, "llama", ("lm_head",))
    path = tmp_path / "adapter/adapter_model.safetensors"
    whole = load_file(path)
    for gone in ("base_model.model.lm_head.weight", "base_model.model.model.layers.1.mlp.up_proj.lora_B.weight"):
        save_file({k: t for k, t in whole.items() if k != gone}, path)
        with pytest.raises(UserError, match=f"1 weights of the adapter are missing, the first is .*{gone.split('.')[-2]}"):
            load_policy(tmp_path / "adapter")


def test_the_base_stage_leaves_a_whole_model(tmp_path):
    trained = written(tmp_path)

    def base(name: str, path: str, **named: str) -> None:
        perform("base", BaseSpec(model=ModelSource(path=str(tmp_path / path), **named)), {}, tmp_path / name)

    base("a", "adapter")
    assert model_path(tmp_path / "a") == tmp_path / "a" / "model"
    assert_close(says(load_policy(model_path(tmp_path / "a"))), says(trained), rtol=1e-5, atol=1e-5)
    base("b", "start")
    assert model_path(tmp_path / "b") == tmp_path / "start"
    with pytest.raises(UserError, match="is a model, not an adapter"):
        base("c", "start", base="x")


def test_a_key_knows_the_bytes_of_the_base(tmp_path):
    from evenhand.plan import plan

    written(tmp_path)

    def key(*overrides: str) -> str:
        given = {"name": "x", "initial_policy": "base", "data": {"world": "quickstart"}, "arms": {"start": {"method": "start"}}}
        model = {"model": {"path": str(tmp_path / "adapter")}}
        return plan.build(read_experiment(given | model, overrides).value)["base"].key

    before = key()
    assert key() == before
    save(moved(Policy(network("llama"))), character_tokenizer(), tmp_path / "start")
    assert key() != before
    with pytest.raises(UserError, match="is a model, not an adapter"):
        key(f"model.path={tmp_path / 'start'}", f"model.base={tmp_path / 'start'}")


def test_a_reward_model_s_adapter_is_a_reward_model(tmp_path):
    """Head and adapter; as `reward_models: {rm: {path: ...}}` it scores as it was trained to."""
    from evenhand.types import Head

    save(Policy(network("llama")), character_tokenizer(), tmp_path / "start")
    reward = a_reward_model()
    reward.hf.model.load_state_dict(from_transformers(tmp_path / "start").model.state_dict())
    attach(reward, Adapter(rank=4, alpha=8.0), seed=0)
    adapter_files.write(moved(reward), tmp_path / "adapter", start=tmp_path / "start")
    policy = perform("base", BaseSpec(model=ModelSource(path=str(tmp_path / "start"))), {}, tmp_path / "policy")
    model = ModelSource(path=str(tmp_path / "adapter"))
    spec = PretrainedRewardModelSpec(model=model, kind="score", setup=setup(16, 16))
    perform("pretrained_reward_model", spec, {"start": policy}, tmp_path / "out")
    from evenhand.models.load import load_reward_model

    found = load_reward_model(model_path(tmp_path / "out"))
    reads, batch = frozenset({Head.SCORE}), a_batch()
    assert_close(found(batch, reads).score, reward(batch, reads).score, rtol=1e-5, atol=1e-5)
    assert Renderer(load_tokenizer(model_path(tmp_path / "out"))).tokenizer.get_vocab() == character_tokenizer().get_vocab()
