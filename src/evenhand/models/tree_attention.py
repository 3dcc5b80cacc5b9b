"""Attention over a packed prompt tree: prompts causal on themselves, completions on their whole prompt and causal on themselves.

Three ways to compute the same thing: flash kernels on slices (processor), FlexAttention (accelerator), and padded blocks
(anywhere; on a processor they serve soft-capping and windows that bite).
"""

from __future__ import annotations

import warnings
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from evenhand.data.batch import paths
from evenhand.models import tree_attention_blocks, tree_attention_flash, tree_attention_flex
from evenhand.models.attention_rule import AttentionRule
from evenhand.types import Layout


class Tree:
    """The attention pattern of one batch. Built once per forward pass, used by every layer."""

    def __init__(self, layout: Layout, positions: Tensor) -> None:
        self.layout, self.positions = layout, positions

    def attend(self, q: Tensor, k: Tensor, v: Tensor, rule: AttentionRule) -> Tensor:
        """q [1, h, T, d], k and v [1, h_kv, T, d] -> [1, T, h, d]. Windows count positions, along the tree."""
        window = None if rule.window is None or rule.window >= depth(self.layout) else rule.window
        if q.is_cuda and flex.works and tree_attention_flex.knows(q, v):
            return flex(self, q, k, v, window, rule)
        plain = q.device.type == "cpu" and not window and not rule.softcap and q.shape[-1] == v.shape[-1]
        groups = tree_attention_flash.branches(self.layout) if plain else None
        if groups is not None:
            return tree_attention_flash.TreeFlash.apply(q, k, v, groups, rule.scale).transpose(1, 2)
        return self.blocks.attend(q, k, v, scale=rule.scale, window=window, softcap=rule.softcap)

    @cached_property
    def blocks(self) -> tree_attention_blocks.Blocks:
        return tree_attention_blocks.Blocks(self.layout, self.positions)

    @cached_property
    def flex(self) -> tree_attention_flex.FlexTree:
        return tree_attention_flex.FlexTree(self.layout, self.positions)


class _Flex:
    """FlexAttention while it works on this machine; padded blocks, said once, from the first failure on."""

    works = True

    def __call__(self, tree: Tree, q: Tensor, k: Tensor, v: Tensor, window: int | None, rule: AttentionRule) -> Tensor:
        try:
            return tree.flex.attend(q, k, v, scale=rule.scale, window=window, softcap=rule.softcap)
        except torch.OutOfMemoryError:  # of the batch, not of the kernel
            raise
        except Exception as error:  # a compiler fails in ways of its own
            self.works = False
            warnings.warn(f"FlexAttention failed ({type(error).__name__}); using padded blocks, slower", stacklevel=2)
            return tree.blocks.attend(q, k, v, scale=rule.scale, window=window, softcap=rule.softcap)


flex = _Flex()


@lru_cache(maxsize=256)
def depth(layout: Layout) -> int:
    """The longest path from the first token of a prompt to the last of a completion, in tokens."""
    return max(prompt.length + completion.length for prompt, completion in paths(layout))
