"""Fixed data for a method: its split as items, reference log-probs joined from their artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from evenhand.methods import BINARY, COMPARISONS, DEMONSTRATIONS, PREFERENCES, Method
from evenhand.models.adapter_layers import Start
from evenhand.stages.common import open_policy, read_split, to_items
from evenhand.train.examples import Item, with_pairs
from evenhand.train.logprobs import Rows, read
from evenhand.train.offline import FixedSource, mismatched_items
from evenhand.types import Group, Head, Need

if TYPE_CHECKING:
    from evenhand.stages.fit import Cell


def source(cell: Cell) -> FixedSource:
    """The method's split as a source of optimizer steps."""
    items = split_items(cell, split_groups(cell.spec, cell.inputs, cell.method, without=comparing(cell)))
    if "reference" in cell.inputs:
        from evenhand.stages.reference import read_rows

        items = joined(items, read_rows(cell.inputs["reference"]))
    items = [labelled(i, cell.method) for i in items if i.tokens.group.prompt.id not in cell.held]
    needs_reference = Need.MISMATCHED in cell.method.objective.needs
    return FixedSource(
        items=items,
        prompts_per_step=cell.spec["train"]["prompts_per_step"],
        tokens_per_microbatch=cell.spec["train"]["tokens_per_microbatch"],
        seed=cell.seed,
        ledger=cell.ledger,
        provides=cell.method.provides,
        reference=reference_reader(cell) if needs_reference else None,
    )


def comparing(cell: Cell) -> frozenset[str]:
    """Validation prompts to leave out before their pairs are written as questions, which are prompts of their own."""
    return cell.held if cell.method.data == COMPARISONS else frozenset()


def split_items(cell: Cell, groups: Sequence[Group]) -> list[Item]:
    """Groups of the method's split as its items."""
    if cell.method.data == COMPARISONS:
        return comparisons(groups, cell)
    items = to_items(groups, cell.renderer, cell.spec)
    return [i for i in map(with_pairs, items) if i.pairs] if cell.method.data == PREFERENCES else items


def split_groups(
    spec: Mapping[str, Any],
    inputs: Mapping[str, Path],
    method: Method,
    prefix: str = "",
    *,
    without: frozenset[str] = frozenset(),
) -> list[Group]:
    """The groups a method learns from, in the form it wants: pairs become labelled singles for binary methods.

    `prefix` "heldout_" names the held-out split; prompts whose ids are in `without` are left out.
    """
    name = spec["data"] or method.split
    groups = [g for g in read_split(inputs, prefix + name) if g.prompt.id not in without]
    return [single for g in groups for single in singles(g)] if method.data == BINARY else groups


def comparisons(groups: Sequence[Group], cell: Cell) -> list[Item]:
    """Pairs as questions with the loss on the letter alone; never cut, since a question without its beginning is another one."""
    from evenhand.judges.preference_model_prompts import check_letters, examples, letter_only

    whole = {**cell.spec, "lengths": {"prompt": None, "completion": None}, "supervise": "completion"}
    items = to_items(examples(groups, cell.renderer, seed=cell.seed), cell.renderer, whole)
    check_letters([i.tokens for i in items])
    return [replace(i, tokens=letter_only(i.tokens)) for i in items]


def singles(group: Group) -> list[Group]:
    """A scored group as one labelled answer each: 1 above the group's middle, 0 below; a single answer keeps its label."""
    if len(group.completions) == 1:
        return [group]
    middle = (max(group.scores) + min(group.scores)) / 2
    labelled_ones = zip(group.completions, group.scores, strict=True)
    return [replace(group, completions=(c,), scores=(float(s > middle),), parts={}) for c, s in labelled_ones if s != middle]


def split_size(spec: Mapping[str, Any], inputs: Mapping[str, Path], method: Method, held: frozenset[str]) -> int:
    """Rows of the method's split that it trains on, for turning epochs into steps."""
    return len(split_groups(spec, inputs, method, without=held))


def heldout_items(cell: Cell) -> list[Item]:
    """Held-out rows for a validation loss, with everything that the method's loss reads; none for demonstrations."""
    if cell.method.data == DEMONSTRATIONS:
        return []
    return _complete(cell, split_groups(cell.spec, cell.inputs, cell.method, "heldout_"))


def held_items(cell: Cell) -> list[Item]:
    """The rows of the validation prompts, with everything that the method's loss reads."""
    return _complete(cell, [g for g in split_groups(cell.spec, cell.inputs, cell.method) if g.prompt.id in cell.held])


def _complete(cell: Cell, groups: Sequence[Group]) -> list[Item]:
    """Groups as items with everything that the method's loss reads, KTO's mismatched rows included."""
    items = split_items(cell, groups)
    if cell.method.reference == "none":
        return [labelled(i, cell.method) for i in items]
    reader = reference_reader(cell)
    items = [labelled(i, cell.method) for i in joined(items, reader(items))]
    return items + mismatched_items(items, reader) if Need.MISMATCHED in cell.method.objective.needs else items


def joined(items: Sequence[Item], rows: Rows) -> list[Item]:
    """Items with their reference log-probs, matched by position and checked by length."""
    out = []
    for item, logps in zip(items, rows, strict=True):
        lengths = [len(c.ids) for c in item.tokens.completions]
        if lengths != [len(row) for row in logps]:
            raise ValueError(f"reference log-probs do not fit prompt {item.tokens.group.prompt.id}")
        out.append(replace(item, per_token={**item.per_token, "ref_logp": logps}))
    return out


def labelled(item: Item, method: Method) -> Item:
    """Scores as a field; for labels also the advantage +-1 - c, and the reference, if any, as the behaviour policy."""
    scores = item.tokens.group.scores
    fields = {"score": scores} if method.data != DEMONSTRATIONS else {}
    if method.label_baseline is None:
        return replace(item, per_completion={**item.per_completion, **fields})
    advantage = tuple((1.0 if s > 0 else -1.0) - method.label_baseline for s in scores)
    author = {"behaviour_logp": item.per_token["ref_logp"]} if method.reference != "none" else {}
    per_completion = {**item.per_completion, **fields, "advantage": advantage}
    return replace(item, per_completion=per_completion, per_token={**item.per_token, **author})


def frozen_start(cell: Cell) -> torch.nn.Module:
    """The policy every arm starts from, without gradients; the one the policy is compared to exactly, if it is."""
    if (known := getattr(cell.model, "frozen", None)) is not None:
        return known
    return open_policy(cell.inputs["start"], cell.spec, cell.device).requires_grad_(False)


def reference_network(cell: Cell) -> Any:
    """What says the start's log-probs: the policy itself with its adapter taken off, or a frozen copy."""
    adapter = cell.model.adapter
    alone = adapter is not None and not adapter.modules_to_save and getattr(cell.model, "frozen", None) is None
    return Start(cell.model) if alone else frozen_start(cell)


def reference_reader(cell: Cell, frozen: torch.nn.Module | None = None) -> Callable[[Sequence[Item]], Rows]:
    """Log-probs under the frozen start, for rows that no cache can know in advance."""
    frozen = reference_network(cell) if frozen is None else frozen

    def logps(items: Sequence[Item]) -> Rows:
        return reading(cell, frozen, frozenset({Head.LOGP}), items)[Head.LOGP]

    return logps


def reading(cell: Cell, model: torch.nn.Module, heads: frozenset[Head], items: Sequence[Item]) -> dict[Head, Rows]:
    """What `model` says of items, at this run's temperature."""
    budget = cell.spec["train"]["tokens_per_microbatch"]
    return read(model, items, heads, tokens_per_microbatch=budget, temperature=cell.temperature, device=cell.device)
