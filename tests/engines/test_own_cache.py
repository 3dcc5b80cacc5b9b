"""Models with a cache of their own kind, or none: what is sampled is what a plain forward pass says."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.testing import assert_close

from evenhand.data.batch import pack
from evenhand.models.decode import decoder_for, relative_error
from evenhand.models.decode_own_cache import OwnCacheDecoder, RereadDecoder
from evenhand.models.policy import Policy
from tests.models.architecture_sweep import sampled_groups
from tests.models.tiny_architectures import tiny
from tests.models.tiny_networks import FIRST, plain_logp, rows_of

OWN = {"mamba": OwnCacheDecoder, "mamba2": OwnCacheDecoder, "bart": OwnCacheDecoder,
       "deepseek_v4": RereadDecoder if FIRST else OwnCacheDecoder}  # fmt: skip  # with its own cache it fails there
NONE = {"rwkv": RereadDecoder, "minimax": RereadDecoder, "recurrent_gemma": RereadDecoder, "roberta": RereadDecoder}
PROMPTS = ("5 6 7 8 9", "10 11", "12", "13 14")


def a_policy(kind: str) -> Policy:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Policy(tiny(kind))


@pytest.mark.parametrize(("kind", "way"), (OWN | NONE).items())
def test_sampled_log_probs_are_those_of_a_plain_forward_pass(kind, way):
    policy = a_policy(kind)
    assert type(decoder_for(policy.hf)) is way
    groups = sampled_groups(policy.hf, policy, PROMPTS)
    batch = pack(groups)
    with torch.no_grad():
        plain = plain_logp(policy.hf, groups)
        trained = policy(batch).logp
    for sampled, expected, found in zip(rows_of(batch.behaviour_logp, groups), plain, rows_of(trained, groups), strict=True):
        assert_close(sampled, expected, rtol=0, atol=2e-5)
        assert_close(found, expected, rtol=0, atol=2e-5)
    assert len({t.ids for g in groups for t in g.completions}) > 6, "rows differ"


@pytest.mark.parametrize("kind", ["mamba", "rwkv"])
def test_a_row_does_not_depend_on_the_rows_beside_it(kind):
    policy = a_policy(kind)
    together = sampled_groups(policy.hf, policy, PROMPTS)
    for prompt, group in zip(PROMPTS, together, strict=True):
        alone = sampled_groups(policy.hf, policy, [prompt], n=1)[0]
        assert alone.completions[0].ids == group.completions[0].ids


@pytest.mark.parametrize("decoder", [OwnCacheDecoder, RereadDecoder])
@pytest.mark.parametrize("kind", ["llama", "mamba", "gpt2"])
def test_both_ways_reproduce_models_that_have_a_faster_one(kind, decoder):
    assert relative_error(decoder(tiny(kind))) < 1e-5
