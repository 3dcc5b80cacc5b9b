"""The packed tree computes what transformers computes on plain rows: values and gradients, for every architecture we claim."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.testing import assert_close

from evenhand.data.batch import pack
from evenhand.errors import UserError
from evenhand.models.policy import Policy
from evenhand.types import Head
from tests.models.tiny_networks import (
    FIRST,
    a_batch,
    assert_same_gradients,
    gradients,
    network,
    plain_logp,
    rows_of,
    token_groups,
    weighted,
)

DENSE = ["llama", "qwen2", "qwen3", "mistral", "gemma2", "gemma3_text", "phi", "phi3", "olmo2", "smollm3", "gpt_neox", "granite"]
ARCHITECTURES = [*DENSE, "starcoder2", "gpt2", "opt", "glm4", "cohere2", "qwen3_moe"]
WINDOWED = ["qwen2", "mistral", "gemma2", "gemma3_text", "phi3", "starcoder2", "cohere2"]
FALLBACK = {
    "falcon": "cannot be replaced",
    "bloom": "cannot be replaced",
    "nemotron": "cannot be replaced" if FIRST else "do not pass the tree on",
    "gpt_oss": "s_aux",
    "mamba": "rejects a packed tree",
}


def policy_without_warnings(hf):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Policy(hf)


def assert_equal_to_plain(policy, hf, groups, temperature=1.0):
    """`hf` is wrapped by `policy`, but its own forward pass without a tree stays plain: reference first, then the policy."""
    batch = pack(groups)
    found = rows_of(policy(batch, temperature=temperature).logp, groups)
    expected = plain_logp(hf, groups, temperature)
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, rtol=0, atol=2e-5)
    assert_same_gradients(gradients(policy.hf, weighted(found)), gradients(hf, weighted(expected)))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_tree_equals_plain_rows(kind):
    policy = policy_without_warnings(network(kind))
    assert (policy.layout_mode, policy.head_mode) == ("tree", "fused")
    assert_equal_to_plain(policy, network(kind), token_groups())


@pytest.mark.parametrize("kind", WINDOWED)
@pytest.mark.parametrize("window", [3, 5, 40], ids=["shorter", "longer than some prompts", "longer than all"])
def test_windows_count_positions_along_the_tree(kind, window):
    policy = policy_without_warnings(network(kind, sliding_window=window))
    assert policy.layout_mode == "tree"
    assert_equal_to_plain(policy, network(kind, sliding_window=window), token_groups())


def test_a_window_matters():
    groups = token_groups()
    narrow, wide = (Policy(network("mistral", sliding_window=w))(pack(groups)).logp for w in (3, 40))
    assert (narrow - wide).abs().max() > 1e-3


def test_soft_capping_matters():
    groups = token_groups()
    capped = network("gemma2", attn_logit_softcapping=0.1)
    free = network("gemma2", attn_logit_softcapping=None)
    assert (Policy(capped)(pack(groups)).logp - Policy(free)(pack(groups)).logp).abs().max() > 1e-3


@pytest.mark.parametrize("temperature", [0.7, 1.5])
@pytest.mark.parametrize("kind", ["qwen2", "gemma2"])
def test_temperature_divides_the_logits(kind, temperature):
    assert_equal_to_plain(Policy(network(kind)), network(kind), token_groups(), temperature)


@pytest.mark.parametrize("kind", FALLBACK)
def test_other_architectures_fall_back_and_stay_correct(kind):
    with pytest.warns(UserWarning, match=FALLBACK[kind]):
        policy = Policy(network(kind))
    assert policy.layout_mode == "padded"
    assert_equal_to_plain(policy, network(kind), token_groups())


def test_a_head_that_is_not_what_its_config_says_is_found_out(monkeypatch):
    monkeypatch.setattr("evenhand.models.head.logit_scale", lambda config: 1.0)
    with pytest.warns(UserWarning, match="full logits"):
        policy = Policy(network("granite"))
    assert policy.head_mode == "logits"
    assert_equal_to_plain(policy, network("granite"), token_groups())


def test_a_head_behind_a_projection_falls_back_to_the_models_own_logits():
    """RemBERT's head reads 48 numbers that a layer of the head makes of a state's 32."""
    small = {"output_embedding_size": 48, "input_embedding_size": 32, "is_decoder": True, "num_key_value_heads": 4}
    if FIRST:  # there it looks ahead, whatever `is_decoder` says
        with pytest.raises(UserError, match="not causal"):
            Policy(network("rembert", **small))
        return
    with pytest.warns(UserWarning, match="its head reads 48 numbers of a state, not the 32"):
        policy = Policy(network("rembert", **small))
    assert policy.head_mode == "logits"
    assert_equal_to_plain(policy, network("rembert", **small), token_groups())


def test_a_window_the_attention_is_not_told_is_found_out(monkeypatch):
    """Windows can be longer than the self-check's rows, so they are compared by what is asked for, not by values."""
    from transformers.models.mistral import modeling_mistral

    forward = modeling_mistral.MistralAttention.forward

    def forgetful(self, *args, **named):
        from evenhand.models import attention

        told = attention.attention_forward

        def untold(*a, sliding_window=None, **n):
            return told(*a, **n)

        monkeypatch.setitem(modeling_mistral.ALL_ATTENTION_FUNCTIONS._global_mapping, attention.NAME, untold)
        return forward(self, *args, **named)

    monkeypatch.setattr(modeling_mistral.MistralAttention, "forward", forgetful)
    with pytest.warns(UserWarning, match="not told its windows"):
        assert Policy(network("mistral", sliding_window=1000)).layout_mode == "padded"


def test_a_network_that_sees_the_future_is_refused():
    with pytest.raises(UserError, match="not causal"):
        Policy(network("bert"))


@pytest.mark.parametrize("kind", ["llama", "gemma2", "mamba"])
def test_entropy_is_that_of_each_distribution(kind):
    groups = token_groups(((4, (3, 2)),))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        policy = Policy(network(kind))
    entropy = policy(pack(groups), {Head.LOGP, Head.ENTROPY}, temperature=0.9).entropy
    hf = network(kind)
    for row, tokens in zip(entropy, groups[0].completions, strict=True):
        ids = torch.tensor([groups[0].prompt + tokens.ids])
        p = (hf(input_ids=ids).logits[0, 3:-1] / 0.9).double().softmax(-1)
        assert_close(row[: len(tokens.ids)].double(), -(p * p.log()).sum(-1), rtol=0, atol=1e-5)
        assert (row[len(tokens.ids) :] == 0).all()


def test_tokens_that_do_not_count_get_zero_and_no_gradient():
    batch = a_batch()
    batch.completion_mask[0, 1] = False
    policy = Policy(network("llama"))
    logp = policy(batch).logp
    full = policy(a_batch()).logp
    assert logp[0, 1] == 0
    assert full[0, 1] != 0
    same = batch.completion_mask
    assert_close(logp[same], full[same])


def test_an_unknown_read_is_refused():
    with pytest.raises(ValueError, match="does not give value"):
        Policy(network("llama"))(a_batch(), {Head.VALUE})
