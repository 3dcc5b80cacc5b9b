"""A model that is kept as its adapter alone is, when it is read, the merged model to the byte."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from evenhand.errors import UserError
from evenhand.models import adapter_files
from evenhand.models.adapter_config import Adapter
from evenhand.models.adapter_layers import merged, merged_in_turn
from evenhand.models.adapter_models import save_adapted
from evenhand.models.adapters import attach
from evenhand.models.artifacts import NORMALISATION_FILE
from evenhand.models.heads import ValuePolicy
from evenhand.models.load import (
    load_policy,
    load_reward_model,
    load_tokenizer,
    load_value_policy,
    merge_adapter,
    reward_model_from,
    save,
    whole_folder,
)
from evenhand.models.policy import Policy
from evenhand.stages.base import download
from evenhand.store import digests, pointer
from evenhand.store.store import Damaged, Store
from tests.models.test_adapters import moved
from tests.models.tiny_networks import character_tokenizer, network

CASES = {
    "llama": ("llama", (), "float32"), "in bfloat16": ("llama", (), "bfloat16"), "transposed": ("gpt2", (), "float32"),
    "dora": ("qwen2", (), "bfloat16", "dora"), "dora, transposed": ("gpt2", (), "float32", "dora"),
    "tied": ("gemma2", ("embed_tokens",), "float32"), "a head of its own": ("llama", ("lm_head",), "float32"),
}  # fmt: skip


def trained(start: Path, whole: tuple[str, ...] = (), dtype: str = "float32", form="lora", seed: int = 0) -> Policy:
    policy = load_policy(start, dtype=dtype, device="cpu")
    attach(policy, Adapter(form=form, rank=3, alpha=7.0, rslora=True, modules_to_save=whole), seed=seed)
    return moved(policy)


def kept(policy, folder: Path, start: Path, stop_ids=()) -> tuple[Path, Path]:
    """The model whole, and as its adapter."""
    save(policy, character_tokenizer(), folder / "whole", stop_ids=stop_ids)
    save_adapted(policy, character_tokenizer(), folder / "adapter", start=start, stop_ids=stop_ids)
    return folder / "whole", folder / "adapter"


def start_of(folder: Path, kind: str = "llama") -> Path:
    save(Policy(network(kind)), character_tokenizer(), folder / "start")
    return folder / "start"


def assert_equal_weights(a, b) -> None:
    """Also what is in no file: frequencies of rotations and the like."""
    first, second = ({**m.hf.state_dict(), **dict(m.hf.named_buffers())} for m in (a, b))
    assert first.keys() == second.keys()
    assert [k for k in first if first[k].dtype != second[k].dtype or not torch.equal(first[k], second[k])] == []


@pytest.mark.parametrize("case", CASES)
def test_the_adapter_read_again_is_the_merged_model_to_the_byte(case, tmp_path):
    kind, modules, dtype, *form = CASES[case]
    start = start_of(tmp_path, kind)
    policy = trained(start, modules, dtype, *form)
    whole, adapter = kept(policy, tmp_path, start, stop_ids=(2, 5))
    for asked in ("float32", "bfloat16"):
        assert_equal_weights(load_policy(whole, dtype=asked), load_policy(adapter, dtype=asked))
    before, after = (load_policy(f, dtype=dtype).hf.state_dict() for f in (start, adapter))
    assert any(not torch.equal(before[k], after[k]) for k in before)
    assert not any(p.suffix == ".safetensors" and p.name != adapter_files.WEIGHTS for p in adapter.iterdir())
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        assert json.loads((whole / name).read_text()) == json.loads((adapter / name).read_text()), name
    assert load_policy(adapter).hf.generation_config.eos_token_id == [2, 5]


def test_an_adapter_on_an_adapter(tmp_path):
    """The second is trained on the first's merged weights, rounded to bfloat16 on the way."""
    start = start_of(tmp_path)
    first_whole, first = kept(trained(start, dtype="bfloat16"), tmp_path / "first", start)
    policy = trained(first, dtype="bfloat16", seed=1)
    assert_equal_weights(load_policy(first_whole, dtype="bfloat16"), load_policy(first, dtype="bfloat16"))
    whole, second = kept(policy, tmp_path / "second", first)
    assert_equal_weights(load_policy(whole, dtype="bfloat16"), load_policy(second, dtype="bfloat16"))


def test_a_reward_model_with_its_head_and_one_that_starts_from_an_adapter(tmp_path):
    start = start_of(tmp_path)
    model = reward_model_from(start, seed=3, device="cpu")
    attach(model, Adapter(rank=2), seed=0)
    whole, adapter = kept(moved(model), tmp_path / "rm", start)
    assert_equal_weights(load_reward_model(whole), load_reward_model(adapter))
    assert load_reward_model(adapter).hf.config.pad_token_id == load_reward_model(whole).hf.config.pad_token_id
    assert load_tokenizer(adapter).pad_token == load_tokenizer(whole).pad_token
    policies = kept(trained(start), tmp_path / "policy", start)
    assert_equal_weights(*(reward_model_from(folder, seed=3, device="cpu") for folder in policies))


@pytest.mark.parametrize(("kind", "whole"), [("llama", ("lm_head",)), ("gemma2", ("embed_tokens",))])
def test_a_reward_model_from_an_adapter_whose_head_learned(kind, whole, tmp_path):
    """The head of the language model is no part of the classifier; of tied embeddings the body has one."""
    start = start_of(tmp_path, kind)
    folders = kept(trained(start, whole), tmp_path / "policy", start)
    assert_equal_weights(*(reward_model_from(folder, seed=3, device="cpu") for folder in folders))


def test_a_reward_model_of_several_outputs_and_what_lies_beside_it(tmp_path):
    start = start_of(tmp_path)
    model = reward_model_from(start, seed=3, device="cpu", outputs=("help", "length"))
    attach(model, Adapter(rank=2), seed=0)
    whole, adapter = kept(moved(model), tmp_path / "rm", start)
    (adapter / NORMALISATION_FILE).write_text("{}")
    merge_adapter(adapter, tmp_path / "merged")
    for folder in (adapter, tmp_path / "merged"):
        again = load_reward_model(folder, labels=None)
        assert_equal_weights(load_reward_model(whole, labels=None), again)
        assert again.hf.config.id2label == {0: "help", 1: "length"}
    assert (tmp_path / "merged" / NORMALISATION_FILE).read_text() == "{}"


def test_a_value_head_is_kept_beside_the_adapter_and_beside_what_is_merged(tmp_path, monkeypatch):
    start = start_of(tmp_path)
    model = ValuePolicy(load_policy(start).hf)
    attach(model, Adapter(rank=2), seed=0)
    torch.nn.init.constant_(model.value_head.weight, 0.25)
    _, adapter = kept(moved(model), tmp_path / "ppo", start)
    merge_adapter(adapter, tmp_path / "merged")
    for folder in (adapter, tmp_path / "merged"):
        assert torch.equal(load_value_policy(folder).value_head.weight, model.value_head.weight)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert torch.equal(load_value_policy("~/merged").value_head.weight, model.value_head.weight)


def test_layers_merged_in_turn_compute_as_merged_ones_and_hold_nothing(tmp_path):
    hf = trained(start_of(tmp_path)).hf
    ids = torch.tensor([[2, 4, 7, 9]])
    before, names = {n: p.clone() for n, p in hf.named_parameters()}, dict(hf.named_modules()).keys()
    with torch.no_grad():
        with merged(hf):
            expected = hf(ids).logits
        with merged_in_turn(hf):
            found = hf(ids).logits
    assert torch.equal(found, expected)
    assert dict(hf.named_modules()).keys() == names
    assert all(torch.equal(before[n], p) for n, p in hf.named_parameters())


def test_merging_into_a_folder_gives_the_whole_model(tmp_path):
    start = start_of(tmp_path)
    whole, adapter = kept(trained(start), tmp_path, start, stop_ids=(2, 5))
    merge_adapter(adapter, tmp_path / "merged")
    for name in ("model.safetensors", "generation_config.json"):
        assert (whole / name).read_bytes() == (tmp_path / "merged" / name).read_bytes()
    with whole_folder(adapter) as folder:
        assert (Path(folder) / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert not Path(folder).exists()
    with whole_folder(whole) as folder:
        assert folder == whole


def test_a_start_that_has_changed_or_is_another_is_refused(tmp_path):
    """The start is an artifact that points at a folder; its config is replaced by another, then its weights."""
    start, store = start_of(tmp_path), tmp_path / "store"
    (store / "a").mkdir(parents=True)
    pointer.point(store / "a", start)
    policy = trained(start)
    save_adapted(policy, character_tokenizer(), store / "b" / "adapter", start=start, artifact=store / "a")
    again = load_policy(store / "b" / "adapter")
    save(policy, None, tmp_path / "whole")
    assert_equal_weights(again, load_policy(tmp_path / "whole"))
    assert pointer.model_path(store / "b") == store / "b" / "adapter"
    (start / "config.json").write_text((start / "config.json").read_text() + " ")
    with pytest.raises(UserError, match=r"(?s)the start of this adapter has changed.*config\.json has \d+ bytes, and had"):
        load_policy(store / "b" / "adapter")
    save(Policy(network("llama", num_hidden_layers=1)), None, tmp_path / "other")
    with pytest.raises(UserError, match=r"weights are missing|does not fit"):
        load_policy(store / "b" / "adapter", base=str(tmp_path / "other"))


def test_a_start_that_was_made_again_with_other_weights_is_refused(tmp_path):
    """As an artifact that was damaged, and made again under other versions."""
    store, first, second = tmp_path / "store", "a" * 32, "b" * 32
    save(Policy(network("llama")), character_tokenizer(), store / first / "model")
    digests.seal(store / first)
    start = store / first / "model"
    save_adapted(trained(start), character_tokenizer(), store / second / "adapter", start=start, artifact=store / first)
    load_policy(store / second / "adapter")
    policy = load_policy(start)
    torch.nn.init.normal_(policy.hf.get_input_embeddings().weight)
    save(policy, character_tokenizer(), start)
    digests.seal(store / first)
    with pytest.raises(UserError, match="other weights than it was trained on"):
        load_policy(store / second / "adapter")


def test_a_stage_that_takes_an_adapter_needs_its_start_whole(tmp_path):
    """`require`, by which every stage opens its inputs, follows to the start: a flipped bit, then nothing at all."""
    store, first, second = Store(tmp_path / "store"), "a" * 32, "b" * 32
    with store.open(first, {"name": "sft"}) as folder:
        save(Policy(network("llama")), character_tokenizer(), folder / "model")
    start = store.path(first) / "model"
    with store.open(second, {"name": "dpo"}) as folder:
        save_adapted(trained(start), character_tokenizer(), folder / "adapter", start=start, artifact=store.path(first))
    assert Store(store.root).require(second) == store.path(second)
    weights = start / "model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(Damaged, match=r"\(sft\) is damaged"):
        Store(store.root).require(second)
    shutil.rmtree(store.path(first))
    with pytest.raises(Damaged, match="it is gone") as caught:
        Store(store.root).require(second)
    assert caught.value.key == first


def test_a_whole_model_is_preferred_where_both_are_there(tmp_path):
    """As artifacts of earlier versions have them."""
    for name in ("model", "adapter"):
        (tmp_path / name).mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    assert pointer.model_path(tmp_path) == tmp_path / "model"
    (tmp_path / "model").rmdir()
    assert pointer.model_path(tmp_path) == tmp_path / "adapter"


def test_who_asks_for_the_whole_model_is_told_of_the_adapter(tmp_path):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    for ask in (load_policy, partial(download, revision=None, where="model.path")):
        with pytest.raises(UserError, match=f"no such folder(?s:.)*give {tmp_path}/adapter"):
            ask(str(tmp_path / "model"))
