"""What healthy copies of a policy may differ by: other kernels round otherwise, and bfloat16 weights make rounded logits."""

from __future__ import annotations

import copy

import pytest
import torch

from evenhand.engines.recompute import recomputed, tolerance_for
from tests.engines.completions_server import policy

PROMPT, TOKENS = [1, 5, 9], [4, 7, 11, 3, 8, 6, 10, 12, 5, 9, 13, 4]


def reading(network, temperature):
    """Log-probs of the tokens by the network itself, and the size of each one's largest logit."""
    with torch.no_grad():
        logits = network(input_ids=torch.tensor([[*PROMPT, *TOKENS]])).logits[0, len(PROMPT) - 1 : -1].float() / temperature
    return logits.log_softmax(-1).gather(1, torch.tensor(TOKENS)[:, None]).squeeze(1), logits.abs().amax(-1)


@pytest.fixture
def loud():
    """A network whose largest logits are some 24, as a real model's are."""
    network = policy(seed=0).hf
    with torch.no_grad():
        network.get_output_embeddings().weight.mul_(24 / float(reading(network, 1.0)[1].mean()))
    return network


@pytest.mark.parametrize(
    ("dtype", "largest", "nats"),
    [
        (torch.float32, 24.0, 0.001), (torch.bfloat16, 24.0, 24 / 128), (torch.float16, 100.0, 100 / 1024),
        (torch.bfloat16, 2.0, 0.05), (torch.float16, 24.0, 0.05),
    ],
)  # fmt: skip
def test_the_tolerance_is_the_step_that_logits_are_rounded_to(dtype, largest, nats):
    network = policy(seed=0).hf.to(dtype)
    assert tolerance_for(network, torch.tensor([largest - 1, largest + 1])) == pytest.approx(nats)


def test_the_policy_reads_its_own_tokens(loud):
    told, largest = reading(loud, 0.5)
    found = recomputed(loud, PROMPT, TOKENS, told.tolist(), temperature=0.5)
    assert found.apart.max() < 1e-5
    assert torch.allclose(found.largest, largest, rtol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_a_copy_that_rounds_otherwise_passes_and_a_stale_head_does_not(loud, temperature):
    rounded = copy.deepcopy(loud).bfloat16()
    exact = copy.deepcopy(rounded).float()
    found = recomputed(rounded, PROMPT, TOKENS, reading(exact, temperature)[0].tolist(), temperature=temperature)
    assert 0.0 < float(found.apart.mean()) <= tolerance_for(rounded, found.largest)
    with torch.no_grad():
        head = exact.get_output_embeddings().weight
        head.copy_(head[torch.randperm(len(head), generator=torch.Generator().manual_seed(0))])
    stale = recomputed(rounded, PROMPT, TOKENS, reading(exact, temperature)[0].tolist(), temperature=temperature)
    assert float(stale.apart.mean()) > tolerance_for(rounded, stale.largest)
