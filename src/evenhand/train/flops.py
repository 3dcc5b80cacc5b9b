"""Floating-point operations of a pass, from the network's shape and the tokens that see each other.

A product of [a, b] and [b, c] is 2abc operations. Counted are the products of linear layers, of the head where it is read, and of
attention over the pairs of tokens that see each other; norms, softmax, embeddings and what a kernel computes in vain are not
(Kaplan et al. 2020, section 2.1; Hoffmann et al. 2022, appendix F). Experts that are no linear layers are not known here, nor
are sliding windows.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from torch import nn

from evenhand.models.adapters import networks
from evenhand.models.backbone import Trunk
from evenhand.models.divergence import OF_BOTH
from evenhand.models.heads import RewardModel, score_head
from evenhand.models.hidden_states import backbone
from evenhand.models.packed_layers import PackedLinear
from evenhand.types import Head, Layout

_READS_VOCABULARY = frozenset({Head.LOGP, Head.ENTROPY, Head.KL, Head.COLLISION})


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What decides the operations of a token: `weights` of linear layers, of which `learning` learn; likewise of the head.

    `attention` is heads times their width, summed over layers.
    """

    weights: int
    learning: int
    head: int
    head_learning: int
    attention: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """`tokens` that run through the layers, `scored` positions where the head is read, `pairs` of tokens that see each other."""

    tokens: int
    scored: int
    pairs: int


def work(prompts: Sequence[int], completions: Sequence[int], owner: Sequence[int], *, shared: bool = True) -> Work:
    """Lengths of prompts, and of completions that continue `prompts[owner[i]]`; each prompt once if `shared`.

    >>> work([3], [2, 2], [0, 0])
    Work(tokens=7, scored=4, pairs=24)
    >>> work([3], [2, 2], [0, 0], shared=False)
    Work(tokens=10, scored=4, pairs=30)
    """
    times = [1] * len(prompts) if shared else [sum(o == i for o in owner) for i in range(len(prompts))]
    tokens = sum(n * p for n, p in zip(times, prompts, strict=True)) + sum(completions)
    pairs = sum(n * p * (p + 1) // 2 for n, p in zip(times, prompts, strict=True))
    pairs += sum(c * prompts[o] + c * (c + 1) // 2 for c, o in zip(completions, owner, strict=True))
    return Work(tokens=tokens, scored=sum(completions), pairs=pairs)


def forward(shape: Shape, done: Work) -> int:
    """2 per weight and token, 4 per unit of attention's width and pair."""
    return 2 * shape.weights * done.tokens + 2 * shape.head * done.scored + 4 * shape.attention * done.pairs


def backward(shape: Shape, done: Work) -> int:
    """2 per weight for the gradient of its input, 2 more where the weight learns; 8 per unit of attention's width and pair."""
    linear = (shape.weights + shape.learning) * done.tokens + (shape.head + shape.head_learning) * done.scored
    return 2 * linear + 8 * shape.attention * done.pairs


def shape_of(model: Trunk) -> Shape:
    """The network's shape, a critic's included."""
    layers = [layer for hf in networks(model).values() for layer in _linear(backbone(hf))]
    head = score_head(model.hf).weight if isinstance(model, RewardModel) else model.hf.get_output_embeddings().weight
    return Shape(
        weights=sum(size for size, _ in layers),
        learning=sum(size for size, learns in layers if learns),
        head=head.numel(),
        head_learning=head.numel() if head.requires_grad else 0,
        attention=sum(_attention(hf.config.get_text_config()) for hf in networks(model).values()),
    )


def of_pass(model: Trunk, shape: Shape, layout: Layout, reads: Set[Head], *, learns: bool, shown: Layout | None = None) -> int:
    """One pass of `model` over a batch, with its gradient if it `learns`; a comparison with a frozen one runs that as well, over
    what it is `shown` where that is another batch."""
    done = _work(layout, model)
    if isinstance(model, RewardModel):
        done = Work(tokens=done.tokens, scored=len(layout.completions), pairs=done.pairs)
    elif not reads & _READS_VOCABULARY:
        done = Work(tokens=done.tokens, scored=0, pairs=done.pairs)
    once = forward(shape, done)
    again = once * (learns and model.checkpointing)
    if compared := reads & OF_BOTH.keys():
        frozen = getattr(model, "frozen", None)
        seen = done if shown is None else _work(shown, model)
        again += len(compared) * forward(shape if frozen is None else shape_of(frozen), seen)  # a teacher is of another size
    return once + again + (backward(shape, done) if learns else 0)


def _work(layout: Layout, model: Trunk) -> Work:
    lengths = ([s.length for s in layout.prompts], [s.length for s in layout.completions])
    return work(*lengths, layout.owner, shared=model.layout_mode == "tree")


def _linear(network: nn.Module) -> list[tuple[int, bool]]:
    """Weights of each linear layer, and whether they learn; of a packed one the weight is not made for that."""
    from transformers.pytorch_utils import Conv1D

    plain = [m for m in network.modules() if isinstance(m, nn.Linear | Conv1D) and type(m) is not PackedLinear]
    packed = [m.in_features * m.out_features for m in network.modules() if type(m) is PackedLinear]
    return [(m.weight.numel(), m.weight.requires_grad) for m in plain] + [(size, False) for size in packed]


def _attention(config: object) -> int:
    heads, layers = config.num_attention_heads, config.num_hidden_layers  # type: ignore[attr-defined]
    width = getattr(config, "head_dim", None) or config.hidden_size // heads  # type: ignore[attr-defined]
    return heads * width * layers
