"""Fixed data for a method: its split as items, reference log-probs joined from their artifact."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from evenhand.methods import BINARY, COMPARISONS, DEMONSTRATIONS, PREFERENCES, RATED, Method
from evenhand.models.adapter_layers import Start
from evenhand.models.policy import Policy
from evenhand.protocols import Model
from evenhand.stages import labels, tokens
from evenhand.stages.adapter import as_start
from evenhand.stages.common import open_policy, tokenised
from evenhand.stages.reference import read_rows
from evenhand.stages.splits import groups_of
from evenhand.stages.training_run import FitSpec, TrainingRun
from evenhand.train import flops
from evenhand.train.examples import Example, with_pairs
from evenhand.train.logprobs import Rows, read
from evenhand.train.offline import FixedSource, Reference, mismatched_items, with_reference, with_uniform
from evenhand.train.policies import INITIAL_POLICY
from evenhand.types import Group, Head, Need

SHARED_REFERENCE = "shared reference"
"""What the reference log-probs cost that arms and seeds share."""


def source(run: TrainingRun) -> FixedSource:
    """The method's split as a source of optimizer steps."""
    items = training_items(run)
    if "reference" in run.inputs:
        items = joined(items, read_rows(run.inputs["reference"]))
        count_shared_reference(run, items)
    items = [i for i in items if i.tokens.group.prompt.id not in run.held]
    for fault in labels.problems(run.method, [i.tokens for i in items], run.renderer):
        raise fault
    reader = reference_reader(run, run.following) if reads_reference(run.method, run.inputs) else None
    compare = partial(compared, run, reader) if reader is not None and "reference" not in run.inputs else None
    return FixedSource(
        items=items if compare is not None else [labelled(i, run.method) for i in items],
        prompts_per_step=run.spec.train.prompts_per_step,
        tokens_per_microbatch=run.spec.train.tokens_per_microbatch,
        seed=run.seed,
        ledger=run.ledger,
        ranks=run.ranks.size,
        reference=reader if Need.MISMATCHED in run.method.objective.needs else None,
        compare=compare,
        uniform=Need.UNIFORM in run.method.objective.needs,
    )


def reads_reference(method: Method, inputs: Collection[str]) -> bool:
    """Whether steps ask for reference log-probs: of their rows where none were read in advance, and of mismatched rows always."""
    in_advance = "reference" in inputs and Need.MISMATCHED not in method.objective.needs
    return method.reference == INITIAL_POLICY and not in_advance


def count_shared_reference(run: TrainingRun, items: Sequence[Example]) -> None:
    """The pass that every arm with a reference needs, as if it were this one's own; once, in a resumed run too."""
    if run.ranks.first and SHARED_REFERENCE not in run.ledger.flops_by_phase:
        shape = flops.shape_of(run.model)
        run.ledger.flops_by_phase[SHARED_REFERENCE] = float(sum(flops.forward(shape, work_of(i)) for i in items))


def work_of(item: Example) -> flops.Work:
    completions = [len(c.ids) for c in item.tokens.completions]
    return flops.work([len(item.tokens.prompt)], completions, [0] * len(completions))


def learned_from(
    spec: FitSpec, inputs: Mapping[str, Path], method: Method, prefix: str = "", *, without: frozenset[str] = frozenset()
) -> list[Group]:
    """The groups a method learns from, in the form it wants; `prefix` "heldout_" names the held-out split."""
    return groups_of(inputs, prefix + (spec.data or method.split), binary=method.data == BINARY, without=without)


def training_items(run: TrainingRun) -> list[Example]:
    """The method's split as its items. Questions about pairs are prompts of their own: none of a validation prompt is made."""
    if run.method.data == COMPARISONS:
        return comparisons(learned_from(run.spec, run.inputs, run.method, without=run.held), run)
    return read_tokens(run, "tokens")


def read_tokens(run: TrainingRun, role: str) -> list[Example]:
    """The tokenised rows of the input `role`, with their pairs where the method learns from pairs."""
    items = tokens.read(run.inputs[role])
    return [with_pairs(i) for i in items] if run.method.data == PREFERENCES else items


def comparisons(groups: Sequence[Group], run: TrainingRun) -> list[Example]:
    """Pairs as questions with the loss on the letter alone; never cut, since a question without its beginning is another one."""
    from evenhand.judges.preference_model_prompts import check_letters, examples, letter_only

    rows = tokenised(examples(groups, run.renderer, seed=run.seed), run.renderer, None)
    check_letters(rows)
    return [Example(tokens=letter_only(row)) for row in rows]


def heldout_items(run: TrainingRun) -> list[Example]:
    """Held-out rows for a validation loss, with everything that the method's loss reads; none for demonstrations."""
    if run.method.data == DEMONSTRATIONS:
        return []
    if run.method.data == COMPARISONS:
        return _complete(run, comparisons(learned_from(run.spec, run.inputs, run.method, "heldout_"), run))
    return _complete(run, read_tokens(run, "heldout_tokens"))


def held_items(run: TrainingRun) -> list[Example]:
    """The rows of the validation prompts, with everything that the method's loss reads."""
    if run.method.data == COMPARISONS:
        groups = [g for g in learned_from(run.spec, run.inputs, run.method) if g.prompt.id in run.held]
        return _complete(run, comparisons(groups, run))
    return _complete(run, [i for i in training_items(run) if i.tokens.group.prompt.id in run.held])


def _complete(run: TrainingRun, items: Sequence[Example]) -> list[Example]:
    """Items with everything that the method's loss reads, KTO's mismatched rows included."""
    items = with_uniform(items, run.seed) if Need.UNIFORM in run.method.objective.needs else list(items)
    if run.method.reference == "none":
        return [labelled(i, run.method) for i in items]
    reader = reference_reader(run)
    items = compared(run, reader, items)
    return items + mismatched_items(items, reader) if Need.MISMATCHED in run.method.objective.needs else items


def compared(run: TrainingRun, reader: Reference, items: Sequence[Example]) -> list[Example]:
    """Items with the log-probs that `reader` gives them, and what the method makes of those."""
    return [labelled(i, run.method) for i in joined(items, reader(items))]


def joined(items: Sequence[Example], rows: Rows) -> list[Example]:
    """Items with their reference log-probs, matched by position and checked by length."""
    for item, logps in zip(items, rows, strict=True):
        lengths = [len(c.ids) for c in item.tokens.completions]
        if lengths != [len(row) for row in logps]:
            raise ValueError(f"reference log-probs do not fit prompt {item.tokens.group.prompt.id}")
    return with_reference(items, rows)


def labelled(item: Example, method: Method) -> Example:
    """Scores as a field; for labels also the advantage +-1 - c, and the reference, if any, as the behaviour policy."""
    scores = item.tokens.group.scores
    if method.data == RATED:
        return replace(item, ratings=ratings_of(item.tokens.group, method.outputs))
    fields = {"score": scores} if method.data != DEMONSTRATIONS else {}
    if method.label_baseline is None:
        return replace(item, per_completion={**item.per_completion, **fields})
    advantage = tuple((1.0 if s > 0 else -1.0) - method.label_baseline for s in scores)
    author = {"behaviour_logp": item.per_token["ref_logp"]} if method.reference != "none" else {}
    per_completion = {**item.per_completion, **fields, "advantage": advantage}
    return replace(item, per_completion=per_completion, per_token={**item.per_token, **author})


def ratings_of(group: Group, attributes: Sequence[str]) -> tuple[tuple[float, ...], ...]:
    """Every answer's rating by each attribute; NaN where it has none."""
    missing = (math.nan,) * len(group.completions)
    return tuple(zip(*(group.parts.get(name, missing) for name in attributes), strict=True))


def frozen_start(run: TrainingRun) -> Policy:
    """The policy every arm starts from, without gradients; the one the policy is compared to exactly, if it is."""
    if run.compared_to is not None:
        return run.compared_to
    start = open_policy(run.inputs["start"], run.spec.setup.compute, run.device, run.ledger)
    return as_start(start, run.spec.train.adapter).requires_grad_(False)


def reference_network(run: TrainingRun) -> Model:
    """What says the start's log-probs: the policy itself with its adapter taken off, or a frozen copy."""
    adapter = run.model.adapter
    alone = adapter is not None and not adapter.modules_to_save and run.compared_to is None
    return Start(run.model) if alone else frozen_start(run)


def reference_reader(run: TrainingRun, frozen: Model | None = None) -> Reference:
    """Log-probs under the frozen start, or `frozen`, for rows that no cache can know in advance."""
    network = reference_network(run) if frozen is None else frozen

    def logps(items: Sequence[Example]) -> Rows:
        with run.ledger.passes("reference"):
            return reading(run, network, frozenset({Head.LOGP}), items)[Head.LOGP]

    return logps


def reading(run: TrainingRun, model: Model, heads: frozenset[Head], items: Sequence[Example]) -> dict[Head, Rows]:
    """What `model` says of items, at this run's temperature."""
    return read(
        model, items, heads, tokens_per_microbatch=run.spec.train.tokens_per_microbatch, temperature=run.temperature,
        device=run.device, ranks=run.ranks,
    )  # fmt: skip
