"""The tabular tree against a walk through it, one answer at a time."""

import itertools
import math

import pytest
import torch

from evenhand.theory.tree import ProbabilityTree

SHAPES = [(2, 1), (2, 3), (3, 2), (4, 2)]


def random_logits(tree, prompts=2):
    return torch.randn(prompts, tree.nodes, tree.actions, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def node_of(tree, prefix):
    """The node reached by a prefix: nodes are numbered level by level, and within a level in base A."""
    first = sum(tree.actions**d for d in range(len(prefix)))
    return first + sum(a * tree.actions ** (len(prefix) - 1 - i) for i, a in enumerate(prefix))


@pytest.mark.parametrize(("actions", "horizon"), SHAPES)
def test_leaf_log_probs_are_sums_along_the_path(actions, horizon):
    tree = ProbabilityTree(actions, horizon)
    logits = random_logits(tree)
    found = tree.leaf_logp(logits)
    for x in range(2):
        for leaf, path in enumerate(itertools.product(range(actions), repeat=horizon)):
            expected = 0.0
            for h in range(horizon):
                z = logits[x, node_of(tree, path[:h])].tolist()
                expected += z[path[h]] - math.log(sum(math.exp(v) for v in z))
            assert found[x, leaf].item() == pytest.approx(expected, abs=1e-12)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(2, dtype=torch.float64))


def test_a_policy_that_ignores_its_state_gives_permuted_answers_one_probability():
    tree = ProbabilityTree(3, 2)
    logp = tree.shared_leaf_logp(torch.tensor([[0.1, 0.7, -0.4]], dtype=torch.float64)).reshape(3, 3)
    torch.testing.assert_close(logp, logp.T)


@pytest.mark.parametrize(("actions", "horizon"), SHAPES)
def test_backward_induction_is_the_tilted_distribution(actions, horizon):
    tree = ProbabilityTree(actions, horizon)
    logits = random_logits(tree)
    reward = torch.randn(2, tree.leaves, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weight = tree.leaf_logp(logits).exp() * (reward / 0.3).exp()
    torch.testing.assert_close(tree.soft_optimal(reward, logits, 0.3).exp(), weight / weight.sum(-1, keepdim=True))
