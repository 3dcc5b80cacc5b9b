"""Every kernel of tree attention against one dense softmax with the pattern written out token by token."""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from evenhand.models import tree_attention_flex
from evenhand.models.attention_rule import AttentionRule
from evenhand.models.tree_attention import Tree, _Flex, depth
from evenhand.models.tree_attention_blocks import WASTE, AttentionUnit, bucket
from evenhand.models.tree_attention_flash import TreeFlash, branches
from evenhand.models.tree_attention_flex import BLOCK, block_lists
from evenhand.types import Layout, Span
from tests.models.tiny_networks import SHAPES, a_batch

ODD = ((40, (3, 3, 3, 9)), (37, (12, 11)), (2, (1,)), (39, (30, 30)))
"""Prompts of nearly one length share a block and are padded in it; completions in runs of one length."""
LONG = ((150, (140, 20)), (30, (200,)), (129, (1, 128)))
"""Longer than a block of FlexAttention."""


@lru_cache
def sees(layout: Layout, window: int | None = None) -> torch.Tensor:
    """[T, T] bool by definition: token q sees k on the path from the root to itself, at most `window` - 1 positions back."""
    table = torch.zeros(layout.total, layout.total, dtype=torch.bool)
    paths = [(layout.prompts[g], c) for g, c in zip(layout.owner, layout.completions, strict=True)]
    for prompt, completion in paths:
        path = [*range(prompt.start, prompt.stop), *range(completion.start, completion.stop)]
        back = torch.arange(len(path))[:, None] - torch.arange(len(path))
        table[torch.tensor(path)[:, None], torch.tensor(path)] |= (back >= 0) & (back < (window or len(path)))
    return table


def dense(q, k, v, layout, rule):
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    score = q @ k.mT * (rule.scale or q.shape[-1] ** -0.5)
    if rule.softcap is not None:
        score = rule.softcap * torch.tanh(score / rule.softcap)
    score = score.masked_fill(~sees(layout, rule.window), -torch.inf)
    return (score.softmax(-1) @ v).transpose(1, 2)


def operands(total, heads=(4, 2), size=8, dtype=torch.float64):
    """As transformers lays them out: heads beside each other, transposed."""
    generator = torch.Generator().manual_seed(3)
    made = [torch.randn(1, total, h, size, generator=generator, dtype=dtype) for h in (heads[0], heads[1], heads[1])]
    return [x.transpose(1, 2).requires_grad_() for x in made]


def kernel(name, tree):
    def run(q, k, v, rule):
        if name == "flash":
            return TreeFlash.apply(q, k, v, branches(tree.layout), rule.scale).transpose(1, 2)
        way = tree.blocks if name == "blocks" else tree.flex
        return way.attend(q, k, v, scale=rule.scale, window=rule.window, softcap=rule.softcap)

    return run


RULES = {
    "plain": AttentionRule(),
    "scaled": AttentionRule(scale=0.7),
    "capped": AttentionRule(softcap=1.5),
    "window": AttentionRule(window=4),
}
RULES |= {"window one": AttentionRule(window=1), "everything": AttentionRule(scale=0.5, window=11, softcap=2.0)}
CASES = [("flash", "plain"), ("flash", "scaled"), *itertools.product(["blocks", "flex"], RULES)]


@pytest.mark.parametrize("shapes", [SHAPES, ODD, LONG], ids=["small", "odd", "long"])
@pytest.mark.parametrize(("name", "rule"), CASES)
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_kernels_compute_the_pattern(name, rule, shapes):
    batch, rule = a_batch(shapes=shapes), RULES[rule]
    tensors = operands(len(batch.ids))
    run = kernel(name, Tree(batch.layout, batch.positions))
    expected = dense(*tensors, batch.layout, rule)
    if name == "flex":  # has no backward pass on a processor; its compiled kernel is checked where there is an accelerator
        assert_close(run(*(x.detach() for x in tensors), rule), expected.detach(), rtol=0, atol=1e-5)
        return
    found = run(*tensors, rule)
    assert_close(found, expected, rtol=0, atol=1e-10)
    pull = torch.randn(found.shape, generator=torch.Generator().manual_seed(4), dtype=found.dtype)
    grads = (torch.autograd.grad(out, tensors, pull) for out in (found, expected))
    for a, b in zip(*grads, strict=True):
        assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("failure", "works"), [(torch.OutOfMemoryError("full"), True), (RuntimeError("no kernel"), False)])
def test_a_batch_that_does_not_fit_leaves_the_accelerators_kernel_in_use(monkeypatch, failure, works):
    """The training loop then makes it smaller. Any other failure is the compiler's: padded blocks from then on."""

    def fail(*_, **__):
        raise failure

    monkeypatch.setattr(tree_attention_flex.FlexTree, "attend", fail)
    batch, flex = a_batch(), _Flex()
    tensors, tree = operands(len(batch.ids)), Tree(batch.layout, batch.positions)
    if works:
        with pytest.raises(torch.OutOfMemoryError):
            flex(tree, *tensors, None, AttentionRule())
    else:
        with pytest.warns(UserWarning, match="padded blocks"):
            found = flex(tree, *tensors, None, AttentionRule())
        assert_close(found, dense(*tensors, batch.layout, AttentionRule()), rtol=0, atol=1e-10)
    assert flex.works is works


def test_narrow_heads_have_no_kernel_on_an_accelerator():
    wide, narrow = (torch.zeros(1, 2, 5, size) for size in (16, 8))
    assert [tree_attention_flex.knows(q, v) for q, v in ((wide, wide), (wide, narrow), (narrow, wide))] == [True, False, False]


@pytest.mark.parametrize("heads", [(4, 4), (4, 1), (6, 3)])
def test_grouped_heads(heads):
    batch = a_batch(shapes=ODD)
    tensors = operands(len(batch.ids), heads)
    tree = Tree(batch.layout, batch.positions)
    expected = dense(*tensors, batch.layout, AttentionRule())
    for name in ("flash", "blocks"):
        assert_close(kernel(name, tree)(*tensors, AttentionRule()), expected, rtol=0, atol=1e-10)


def test_flash_gradients_by_finite_differences():
    batch = a_batch(shapes=((3, (2, 2, 1)), (2, (3,))))
    groups = branches(batch.layout)
    assert torch.autograd.gradcheck(lambda *x: TreeFlash.apply(*x, groups, 0.6), operands(len(batch.ids), (2, 1), 3))


def test_half_precision_attention_stays_near():
    batch = a_batch(shapes=ODD)
    exact = operands(len(batch.ids), dtype=torch.float32)
    rough = [x.to(torch.bfloat16) for x in exact]
    tree = Tree(batch.layout, batch.positions)
    found = tree.attend(*rough, AttentionRule())
    assert found.dtype == torch.bfloat16
    assert_close(found.float(), dense(*exact, batch.layout, AttentionRule()), rtol=0, atol=0.05)


def test_the_kernel_follows_the_rule(monkeypatch):
    batch = a_batch()
    tree, tensors = Tree(batch.layout, batch.positions), operands(len(batch.ids))
    longest = max(p + max(c) for p, c in SHAPES)
    assert depth(batch.layout) == longest
    built = lambda: "blocks" in vars(tree)  # noqa: E731
    tree.attend(*tensors, AttentionRule(window=longest))
    assert not built(), "a window as long as the longest path is no window"
    tree.attend(*tensors, AttentionRule(window=longest - 1))
    assert built()


def test_prompts_whose_completions_lie_elsewhere_need_blocks():
    apart = Layout(prompts=(Span(0, 2), Span(2, 3)), completions=(Span(5, 2), Span(7, 1)), owner=(0, 1))
    assert branches(apart) is None
    tensors = operands(apart.total)
    positions = torch.tensor([0, 1, 0, 1, 2, 2, 3, 3])
    assert_close(
        Tree(apart, positions).attend(*tensors, AttentionRule()), dense(*tensors, apart, AttentionRule()), rtol=0, atol=1e-10
    )


def test_runs_of_one_length():
    (branch,) = branches(a_batch(shapes=((4, (3, 3, 2, 3)),)).layout)
    assert (branch.prompt, branch.leaves) == (Span(0, 4), Span(4, 11))
    assert branch.runs == ((Span(4, 3), 2), (Span(10, 2), 1), (Span(12, 3), 1))


def test_padding_in_blocks_is_bounded():
    draw = np.random.default_rng(0)
    units = [AttentionUnit(Span(0, int(n)), Span(0, int(m)) if m else None) for n, m in draw.integers(1, 60, (80, 2))]
    made = bucket(units)
    assert sorted(map(id, units)) == sorted(id(u) for block in made for u in block)
    for block in made:
        real = sum(q * k for q, k in (u.size for u in block))
        padded = len(block) * max(u.size[0] for u in block) * max(u.size[1] for u in block)
        assert padded <= WASTE * real
    assert len(made) < len(units) / 2


def test_flex_blocks_cover_every_allowed_pair():
    layout = a_batch(shapes=LONG).layout
    count, index = block_lists(layout)
    allowed = sees(layout)
    for q in range(len(count)):
        listed = set(index[q, : count[q]].tolist())
        needed = {k // BLOCK for k in allowed[q * BLOCK : (q + 1) * BLOCK].any(0).nonzero().flatten().tolist()}
        assert needed <= listed <= set(range(q + 1))
    assert int(count.sum()) < len(count) * (len(count) + 1) // 2, "unrelated blocks are skipped"
