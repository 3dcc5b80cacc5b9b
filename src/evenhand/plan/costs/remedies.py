"""What would make a stage fit: the smallest change of its settings with which its prediction does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import reduce
from itertools import chain, combinations

from evenhand.models.adapter_config import Adapter
from evenhand.stages.fit import FitSpec
from evenhand.train.config import Train

Peak = Callable[[FitSpec], int]
"""The peak of a stage's memory, in bytes."""
SMALLEST = 256
"""Tokens of a micro-batch below which nothing is won."""
Change = Callable[[FitSpec], FitSpec]


def fitting(spec: FitSpec, peak: Peak, room: float) -> str | None:
    """The first of the ways out that fits into `room`, as it is typed; None where none does."""
    return next((said for changed, said in ways(spec) if peak(changed) <= room), None)


def ways(spec: FitSpec) -> Iterator[tuple[FitSpec, str]]:
    """From those that cost nothing to those that change what is learned: smaller micro-batches; activations computed twice,
    moments in eight bits, an adapter, narrower weights, and these together; shorter rows as well."""
    sizes = _halves(spec.train)
    for size in sizes:
        yield _with(spec, tokens_per_microbatch=size), f"train.tokens_per_microbatch={size}"
    least = _with(spec, tokens_per_microbatch=sizes[-1]) if sizes else spec
    said = [f"train.tokens_per_microbatch={sizes[-1]}"] if sizes else []
    short = replace(spec.setup.lengths, prompt=spec.setup.lengths.prompt // 2, completion=spec.setup.lengths.completion // 2)
    cut = [f"lengths.prompt={short.prompt}", f"lengths.completion={short.completion}"]
    shorter = replace(least, setup=replace(least.setup, lengths=short))
    for start, words in ((least, said), (shorter, [*said, *cut])):
        for changes in _together(_changes(spec)):
            if changes or words != said:
                yield reduce(lambda s, change: change[1](s), changes, start), " ".join([*words, *(name for name, _ in changes)])


def _changes(spec: FitSpec) -> list[tuple[str, Change]]:
    """What can be changed by itself, with how it is typed."""
    found: list[tuple[str, Change]] = []
    if not spec.train.gradient_checkpointing:
        found.append(("train.gradient_checkpointing=true", lambda s: _with(s, gradient_checkpointing=True)))
    packs = spec.setup.compute.shard != "fsdp" and spec.setup.compute.dtype != "float16"
    if spec.train.optimizer == "adamw" and spec.train.adapter is None and packs:
        found.append(("train.optimizer=adamw_8bit", lambda s: _with(s, optimizer="adamw_8bit")))
    if spec.train.adapter is None:
        found.append(("train.adapter.rank=16", lambda s: _with(s, adapter=Adapter())))
    elif (adapter := spec.train.adapter).quantize is None:
        found.append(("train.adapter.quantize=nf4", lambda s: _with(s, adapter=replace(adapter, quantize="nf4"))))
    if spec.setup.compute.dtype == "float32":
        found.append(("model.dtype=bfloat16", _narrow))
    return found


def _together(changes: Sequence[tuple[str, Change]]) -> Iterator[tuple[tuple[str, Change], ...]]:
    """None of them, each, every two, all."""
    return chain.from_iterable(combinations(changes, count) for count in range(len(changes) + 1))


def _narrow(spec: FitSpec) -> FitSpec:
    return replace(spec, setup=replace(spec.setup, compute=replace(spec.setup.compute, dtype="bfloat16")))


def _halves(train: Train) -> list[int]:
    sizes, size = [], train.tokens_per_microbatch // 2
    while size >= SMALLEST:
        sizes.append(size)
        size //= 2
    return sizes


def _with(spec: FitSpec, **changes: object) -> FitSpec:
    return replace(spec, train=replace(spec.train, **changes))  # type: ignore[arg-type]
