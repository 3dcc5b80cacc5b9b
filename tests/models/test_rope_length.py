"""Rotary frequencies by length: a row's log-probs are those of the row alone, and those it was sampled with."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoConfig

from evenhand.data.batch import pack
from evenhand.errors import UserError
from evenhand.models import hidden_states
from evenhand.models.policy import Policy
from evenhand.models.rope_length import Sides
from tests.models.architecture_sweep import sampled_groups
from tests.models.tiny_networks import gradients, network, plain_logp, rows_of, token_groups, weighted

ORIGINAL = 16
RULES: dict[str, dict[str, Any]] = {
    "longrope": {
        "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0],
    },
    "dynamic": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
}  # fmt: skip
SHAPES = ((9, (5, 2, 3)), (14, (1, 2, 9, 4)), (20, (7, 3)))
"""Rows of 11 to 29 tokens: two prompts whose completions lie on both sides of 16, and one that lies beyond."""


def a_network(rule: str, kind: str = "llama", original: int = ORIGINAL) -> Any:
    """Configs write into the dictionary they are given, so each gets its own."""
    limit = 64 if rule == "longrope" else original
    named = {"original_max_position_embeddings": original} if kind == "phi3" else {}
    return network(kind, rope_parameters=parameters(rule, original), max_position_embeddings=limit, **named)


def parameters(rule: str, original: int = ORIGINAL) -> dict[str, Any]:
    found = copy.deepcopy(RULES[rule])
    return found | {"original_max_position_embeddings": original} if rule == "longrope" else found


@pytest.mark.parametrize(("rule", "kind"), [("longrope", "llama"), ("longrope", "phi3"), ("dynamic", "llama")])
def test_log_probs_and_gradients_do_not_depend_on_the_rows_beside(rule: str, kind: str) -> None:
    groups, hf, plain = token_groups(SHAPES), a_network(rule, kind), a_network(rule, kind)
    expected, alone = [], []
    for group in groups:  # a fresh network a row: a dynamic embedding remembers the longest it has seen
        for tokens in group.completions:
            row = type(group)(prompt=group.prompt, completions=(tokens,), group=group.group)
            expected += plain_logp(a_network(rule, kind), [row])
            alone += plain_logp(plain, [row])
    policy = Policy(hf)
    assert policy.layout_mode == "tree"
    for _ in range(2):  # nor on what was seen before
        found = rows_of(policy(pack(groups)).logp, groups)
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b, rtol=1e-5, atol=1e-5)
    if rule == "longrope":
        one, other = gradients(hf, weighted(found)), gradients(plain, weighted(alone))
        for name, gradient in other.items():
            assert_close(one[name], gradient, rtol=1e-4, atol=1e-4)


def test_the_rule_matters_at_these_sizes() -> None:
    """Without it the same rows would be off by more than anything the other test allows."""
    groups = token_groups(SHAPES)
    hf = a_network("longrope")
    expected = [x for g in groups for x in plain_logp(hf, [g])]
    with torch.no_grad():
        ids = torch.tensor([groups[0].prompt + groups[0].completions[0].ids + (5,) * 20])
        beside = hf(input_ids=ids).logits[0].log_softmax(-1)
    token, at = groups[0].completions[0].ids[0], len(groups[0].prompt) - 1
    assert abs(float(beside[at, token] - expected[0][0])) > 1e-3


def test_the_load_check_sees_frequencies_that_change_with_the_longest_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hidden_states, "_by_side", lambda hf, batch, run: run(batch))
    with pytest.raises(UserError, match=r"padded and single rows differ|not causal"):
        Policy(a_network("longrope"))


@pytest.mark.parametrize("rule", RULES)
def test_sampler_and_trainer_agree_on_the_short_side(rule: str) -> None:
    check_agreement(a_network(rule, original=32), ["5 6 7 8 9", "10 11", "12"])


def test_sampler_and_trainer_agree_where_prompts_of_both_sides_are_sampled_together() -> None:
    hf = a_network("longrope")
    check_agreement(hf, ["5 6 7", " ".join(["7", "8", "9"] * 7), "12"])
    assert hf.config.rope_parameters["original_max_position_embeddings"] == ORIGINAL


def check_agreement(hf: Any, prompts: list[str]) -> None:
    policy = Policy(hf)
    batch = pack(sampled_groups(hf, policy, prompts))
    with torch.no_grad():
        logp = policy(batch).logp
    mask = batch.completion_mask
    assert_close(logp[mask], batch.behaviour_logp[mask], rtol=0, atol=2e-5)


def test_a_row_that_would_cross_while_it_is_sampled_is_refused() -> None:
    hf = a_network("longrope")
    with pytest.raises(UserError, match="cross 16 tokens, where the rotary frequencies change") as caught:
        sampled_groups(hf, Policy(hf), ["5 6 7 8 9"])
    assert "max_prompt to 4" in str(caught.value)


def test_sides() -> None:
    config = AutoConfig.for_model("llama", rope_parameters=parameters("longrope"), max_position_embeddings=64)
    rule = Sides(config)
    assert rule.switch == 16
    assert [rule.of(n) for n in (1, 16, 17, 60)] == [(0,), (0,), (1,), (1,)]
    rule = Sides(AutoConfig.for_model("llama", rope_parameters=parameters("dynamic"), max_position_embeddings=32))
    assert [rule.of(n) for n in (1, 32, 33, 60)] == [(32,), (32,), (33,), (60,)]
    assert Sides(AutoConfig.for_model("llama")).switch is None
    assert Sides(AutoConfig.for_model("gpt2")).switch is None
