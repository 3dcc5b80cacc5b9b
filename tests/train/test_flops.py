"""Operations as they are counted for budgets, against those that torch counts while the network runs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from evenhand.models.adapters import Adapter, attach
from evenhand.models.load import new_policy
from evenhand.models.policy import Policy
from evenhand.train import flops
from evenhand.train.flops import Work, backward, forward, shape_of, work

CONFIG = {
    "model_type": "llama", "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip
ROTARY = 5e-3
"""Share of what torch counts that turns positions into angles: a product in name only."""


@pytest.fixture
def policy() -> Policy:
    made = new_policy(CONFIG, seed=0, device="cpu")
    made.hf.set_attn_implementation("eager")  # whose products torch sees as they are
    return made


def counted(run) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def test_a_prompt_is_run_once_and_each_token_sees_what_is_before_it(policy):
    """Token by token with a cache, so that no token meets one that it does not see."""
    prompt, completions = 5, (3, 4)

    def step_by_step(cache: DynamicCache, tokens: int) -> None:
        for _ in range(tokens):
            policy.hf.model(torch.tensor([[1]]), past_key_values=cache, use_cache=True)

    start = DynamicCache()
    with torch.no_grad():
        total = counted(lambda: step_by_step(start, prompt))
        for length in completions:
            cache = copy.deepcopy(start)
            total += counted(lambda c=cache, n=length: (step_by_step(c, n), policy.hf.lm_head(torch.zeros(n, 32))))
    found = forward(shape_of(policy), work([prompt], completions, [0, 0]))
    assert found == pytest.approx(total, rel=ROTARY)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_step_is_a_forward_and_a_backward_pass(policy, frozen):
    """With every pair of tokens computed, as eager attention does. Frozen layers pass the gradient on, and have none."""
    ids = torch.arange(12)[None] % 40
    for name, parameter in policy.hf.named_parameters():
        parameter.requires_grad_("embed" in name or not frozen)
    done = Work(tokens=12, scored=12, pairs=12 * 12)
    shape = shape_of(policy)
    assert counted(lambda: policy.hf(ids)) == pytest.approx(forward(shape, done), rel=ROTARY)
    both = counted(lambda: policy.hf(ids).logits.sum().backward())
    assert both == pytest.approx(forward(shape, done) + backward(shape, done), rel=ROTARY)
    assert (backward(shape, done) == 2 * forward(shape, done)) is not frozen


def test_an_adapter_costs_its_own_weights_and_spares_the_gradient_of_the_others(policy):
    before = shape_of(policy)
    attach(policy, Adapter(rank=2), seed=0)
    after = shape_of(policy)
    added = 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48)) * 2  # q and o, k and v, gate, up and down; two layers of rank 2
    assert after.weights == before.weights + added
    assert after.learning == added
    assert after.head_learning == 0


def test_the_head_is_read_only_where_it_is_asked_for(policy):
    from evenhand.types import Head, Layout, Span

    layout = Layout(prompts=(Span(0, 3),), completions=(Span(3, 2), Span(5, 2)), owner=(0, 0))

    def of(*reads: Head, learns: bool = False) -> int:
        return flops.of_pass(policy, shape_of(policy), layout, frozenset(reads), learns=learns)

    assert of(Head.LOGP) - of() == 2 * 4 * 40 * 32
    for compared in (Head.KL, Head.REFERENCE_KL, Head.REFERENCE_ENTROPY):
        assert of(Head.LOGP, compared) == 2 * of(Head.LOGP), "the reference runs too"
    assert of(Head.KL) == 2 * of(Head.LOGP)
    assert of(Head.LOGP, learns=True) == 3 * of(Head.LOGP)
    policy.checkpointing = True
    assert of(Head.LOGP, learns=True) == 4 * of(Head.LOGP)
