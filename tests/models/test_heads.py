"""Reward models score as transformers does; value heads read the state before each token."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

from evenhand.data.batch import pack
from evenhand.models.heads import RewardModel, ValuePolicy, scored
from evenhand.models.load import load_reward_model, load_value_policy, reward_model_from
from evenhand.models.policy import Policy
from evenhand.models.save import safe_pad_id, save
from evenhand.types import Head
from tests.models.tiny_networks import (
    COMMON,
    SPECIAL,
    a_batch,
    assert_same_gradients,
    character_tokenizer,
    gradients,
    network,
    rows_of,
    shaken,
    token_groups,
)


@pytest.fixture
def tokenizer():
    return character_tokenizer()


def classifier(kind, **more):
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(kind, **{**COMMON, **SPECIAL.get(kind, {}), "num_labels": 1, **more})
    torch.manual_seed(0)
    return shaken(AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval())


def plain_scores(hf, groups):
    """transformers alone, one unpadded row at a time."""
    rows = [group.prompt + tokens.ids for group in groups for tokens in group.completions]
    return torch.stack([hf(input_ids=torch.tensor([row])).logits[0, 0] for row in rows])


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "gpt_neox", "opt", "mistral", "gemma2", "falcon"])
@pytest.mark.filterwarnings("ignore:.*padded rows")
def test_scores_are_those_of_transformers(kind):
    groups = token_groups()
    hf = classifier(kind)
    expected = plain_scores(hf, groups)
    pull = torch.linspace(-1, 2, len(expected))
    wanted = gradients(hf, (expected * pull).sum())
    model = RewardModel(classifier(kind))
    found = model(pack(groups)).score
    assert found.dtype == torch.float32
    assert_close(found, expected, rtol=0, atol=2e-5)
    assert_same_gradients(gradients(model.hf, (found * pull).sum()), wanted)


@pytest.mark.parametrize("padding", [None, "</s>", "<pad>"], ids=["no padding token", "padding is the stop token", "own padding"])
def test_a_saved_reward_model_scores_padded_rows_the_same_elsewhere(tmp_path, tokenizer, padding):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer.pad_token = padding
    groups = token_groups(vocabulary=len(tokenizer))
    stop = tokenizer.eos_token_id
    groups = [
        type(g)(
            prompt=g.prompt,
            completions=tuple(type(c)(ids=(*c.ids, stop), mask=(*c.mask, True)) for c in g.completions),
            group=g.group,
        )
        for g in groups
    ]
    model = RewardModel(classifier("llama", vocab_size=len(tokenizer), pad_token_id=None))
    expected = model(pack(groups)).score
    save(model, tokenizer, tmp_path / "rm")
    assert tokenizer.pad_token == padding, "the caller's tokenizer stays as it is"

    hf = AutoModelForSequenceClassification.from_pretrained(tmp_path / "rm").eval()
    assert hf.num_labels == 1
    rows = [group.prompt + tokens.ids for group in groups for tokens in group.completions]
    padded = AutoTokenizer.from_pretrained(tmp_path / "rm").pad(
        {"input_ids": [list(r) for r in rows]}, padding_side="right", return_tensors="pt"
    )
    with torch.no_grad():
        assert_close(hf(**padded).logits[:, 0], expected, rtol=0, atol=2e-5)
    assert_close(load_reward_model(tmp_path / "rm")(pack(groups)).score, expected, rtol=0, atol=0)


def test_a_padding_token_is_never_the_stop_token(tokenizer):
    tokenizer.pad_token = None
    assert safe_pad_id(tokenizer) == tokenizer.unk_token_id
    tokenizer.unk_token = None
    assert safe_pad_id(tokenizer) == tokenizer.bos_token_id
    tokenizer.bos_token = tokenizer.eos_token
    assert safe_pad_id(tokenizer) is None


def test_a_reward_model_starts_from_the_trunk_of_a_policy(tmp_path):
    policy = Policy(network("qwen2"))
    save(policy, None, tmp_path / "base")
    one, same, other = (reward_model_from(tmp_path / "base", seed=s) for s in (1, 1, 2))
    trunk = policy.hf.base_model.state_dict()
    assert all(torch.equal(value, trunk[name]) for name, value in one.hf.base_model.state_dict().items())
    batch = a_batch()
    assert torch.equal(one(batch).score, same(batch).score)
    assert not torch.equal(one(batch).score, other(batch).score)


def test_score_heads_have_the_stated_spread():
    model = scored(classifier("llama", hidden_size=1024, intermediate_size=8, num_hidden_layers=1), seed=0)
    assert float(model.hf.score.weight.detach().std()) == pytest.approx(1025**-0.5, rel=0.1)


def test_a_reward_model_gives_nothing_but_scores():
    model = RewardModel(classifier("llama"))
    out = model(a_batch(), {Head.SCORE})
    assert out.logp is out.entropy is out.value is None
    with pytest.raises(ValueError, match="logp"):
        model(a_batch(), {Head.LOGP})


def test_values_are_read_before_each_token():
    model, groups = ValuePolicy(network("llama")), token_groups()
    batch = pack(groups)
    reads = {Head.LOGP, Head.VALUE}
    assert torch.equal(model(batch, reads).value, torch.zeros_like(batch.completion_mask, dtype=torch.float32))
    shaken(model.value_head, 1.0)
    out = model(batch, reads)
    for found, (group, tokens) in zip(rows_of(out.value, groups), [(g, c) for g in groups for c in g.completions], strict=True):
        row = torch.tensor([group.prompt + tokens.ids])
        states = network("llama").model(input_ids=row).last_hidden_state[0]
        before = states[len(group.prompt) - 1 : -1]  # the state before token t has seen the prompt and t tokens
        assert_close(found, model.value_head(before)[:, 0], rtol=0, atol=1e-5)
    assert torch.equal(out.logp, Policy(network("llama"))(batch).logp)
    out.value.sum().backward()
    assert model.value_head.weight.grad.abs().max() > 0


def test_values_alone_do_not_touch_the_vocabulary(monkeypatch):
    model = ValuePolicy(network("llama"))
    monkeypatch.setattr(model, "_head", None)
    assert model(a_batch(), {Head.VALUE}).logp is None


def test_a_value_head_survives_saving(tmp_path):
    model, batch = ValuePolicy(network("llama")), a_batch()
    shaken(model.value_head, 1.0)
    expected = copy.deepcopy(model)(batch, {Head.VALUE}).value
    save(model, None, tmp_path / "policy")
    assert torch.equal(load_value_policy(tmp_path / "policy")(batch, {Head.VALUE}).value, expected)
    save(Policy(network("llama")), None, tmp_path / "plain")
    assert load_value_policy(tmp_path / "plain")(batch, {Head.VALUE}).value.abs().max() == 0
