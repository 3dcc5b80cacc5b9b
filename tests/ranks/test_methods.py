"""A step shared by two ranks is a step of one process: loss, gradient, metrics and three updates, for every registered method."""

from __future__ import annotations

import pytest

from evenhand import methods
from tests.battery import variants
from tests.ranks.two import Figures, compared

GRADIENT = 1e-14
"""In float64 sums in another order differ by rounding alone."""
GRADIENT_FP32_HEAD = 2e-7
"""Scores and values are read in fp32 whatever the network's precision."""
METRICS = 1e-6
"""Relative: metrics are kept in fp32."""
WEIGHTS = 1e-7
"""After three steps of 1e-3, each of which Adam divides by the root of a squared gradient."""
BF16_GRADIENT, BF16_METRICS = 5e-2, 5e-2
"""bf16 keeps 8 bits: two sums of one gradient, of norm 1 after clipping, differ in the last of them."""

CASES = {
    "sft": {"name": "sft"},
    "pairs and a reference": {"name": "dpo"},
    "a sort over the whole step (AOT)": {"name": "aot"},
    "a baseline of the whole step (KTO's z0)": {"name": "kto"},
    "scores": {"name": "reward_model"},
    "credited groups, pieces of which lie on both ranks": {"name": "grpo", "prompts": 7},
    "the exact KL to a frozen policy": {"name": "rloo_exact_kl"},
    "a value head": {"name": "ppo"},
    "a critic of its own": {"name": "ppo_critic"},
    "a rank without a row": {"name": "dpo", "prompts": 1},
    "an adapter": {"name": "grpo", "adapter": True},
}
"""A case for each way that a step takes through the loop."""


@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
def test_two_ranks_are_one_process(shard, tmp_path):
    for case, found in compared(CASES, tmp_path, shard=shard).items():
        check(case, found)


@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
def test_a_value_head_in_fp32_on_a_bf16_policy(shard, tmp_path):
    """One group of spread weights has one precision, and this network has two; an adapter in bf16 comes on top."""
    cases = {a: {"name": "ppo", "dtype": "bfloat16", "adapter": a == "adapter"} for a in ("all weights", "adapter")}
    for case, found in compared(cases, tmp_path, shard=shard).items():
        assert found["gradient"] < BF16_GRADIENT, f"{case}: {found}"
        assert found["metrics"] < BF16_METRICS, f"{case}: {found}"


@pytest.mark.slow
@pytest.mark.parametrize("shard", ["ddp", "fsdp"])
def test_every_method_and_variant(shard, tmp_path):
    names = sorted((*methods.METHODS, *variants.VARIANTS))
    found = compared({name: {"name": name} for name in names}, tmp_path, shard=shard)
    assert found.keys() == set(names)
    for case in names:
        check(case, found[case])


def check(case: str, found: Figures) -> None:
    exact = GRADIENT if found["fp32_heads"] == 0 else GRADIENT_FP32_HEAD
    assert found["gradient"] < exact, f"{case}: {found}"
    assert found["metrics"] < METRICS, f"{case}: {found}"
    assert found["weights"] < WEIGHTS, f"{case}: {found}"
    assert found["moved"] > 1e-5, f"{case}: a step that moves nothing proves nothing"
