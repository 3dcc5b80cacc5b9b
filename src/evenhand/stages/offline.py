"""Fixed data for a method: its split as items, reference log-probs joined from their artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from evenhand.methods import BINARY, COMPARISONS, DEMONSTRATIONS, PREFERENCES, Method
from evenhand.models.adapter_layers import Start
from evenhand.models.policy import Policy
from evenhand.protocols import Model
from evenhand.stages.common import open_policy, to_items
from evenhand.stages.reference import read_rows
from evenhand.stages.splits import groups_of
from evenhand.stages.training_run import FitSpec, TrainingRun
from evenhand.train import flops
from evenhand.train.examples import Example, with_pairs
from evenhand.train.logprobs import Rows, read
from evenhand.train.offline import FixedSource, mismatched_items, with_uniform
from evenhand.types import Group, Head, Need

SHARED_REFERENCE = "shared reference"
"""What the reference log-probs cost that arms and seeds share."""


def source(run: TrainingRun) -> FixedSource:
    """The method's split as a source of optimizer steps."""
    items = split_items(run, learned_from(run.spec, run.inputs, run.method, without=comparing(run)))
    if "reference" in run.inputs:
        items = joined(items, read_rows(run.inputs["reference"]))
        count_shared_reference(run, items)
    items = [labelled(i, run.method) for i in items if i.tokens.group.prompt.id not in run.held]
    needs_reference = Need.MISMATCHED in run.method.objective.needs
    return FixedSource(
        items=items,
        prompts_per_step=run.spec.train.prompts_per_step,
        tokens_per_microbatch=run.spec.train.tokens_per_microbatch,
        seed=run.seed,
        ledger=run.ledger,
        reference=reference_reader(run) if needs_reference else None,
        uniform=Need.UNIFORM in run.method.objective.needs,
    )


def count_shared_reference(run: TrainingRun, items: Sequence[Example]) -> None:
    """The pass that every arm with a reference needs, as if it were this one's own; once, in a resumed run too."""
    if SHARED_REFERENCE not in run.ledger.flops_by_phase:
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


def comparing(run: TrainingRun) -> frozenset[str]:
    """Validation prompts to leave out before their pairs are written as questions, which are prompts of their own."""
    return run.held if run.method.data == COMPARISONS else frozenset()


def split_items(run: TrainingRun, groups: Sequence[Group]) -> list[Example]:
    """Groups of the method's split as its items."""
    if run.method.data == COMPARISONS:
        return comparisons(groups, run)
    items = to_items(groups, run.renderer, run.spec.setup.lengths, run.spec.supervise)
    return [i for i in map(with_pairs, items) if i.pairs] if run.method.data == PREFERENCES else items


def comparisons(groups: Sequence[Group], run: TrainingRun) -> list[Example]:
    """Pairs as questions with the loss on the letter alone; never cut, since a question without its beginning is another one."""
    from evenhand.judges.preference_model_prompts import check_letters, examples, letter_only

    items = to_items(examples(groups, run.renderer, seed=run.seed), run.renderer, None)
    check_letters([i.tokens for i in items])
    return [replace(i, tokens=letter_only(i.tokens)) for i in items]


def heldout_items(run: TrainingRun) -> list[Example]:
    """Held-out rows for a validation loss, with everything that the method's loss reads; none for demonstrations."""
    if run.method.data == DEMONSTRATIONS:
        return []
    return _complete(run, learned_from(run.spec, run.inputs, run.method, "heldout_"))


def held_items(run: TrainingRun) -> list[Example]:
    """The rows of the validation prompts, with everything that the method's loss reads."""
    return _complete(run, [g for g in learned_from(run.spec, run.inputs, run.method) if g.prompt.id in run.held])


def _complete(run: TrainingRun, groups: Sequence[Group]) -> list[Example]:
    """Groups as items with everything that the method's loss reads, KTO's mismatched rows included."""
    items = split_items(run, groups)
    items = with_uniform(items, run.seed) if Need.UNIFORM in run.method.objective.needs else items
    if run.method.reference == "none":
        return [labelled(i, run.method) for i in items]
    reader = reference_reader(run)
    items = [labelled(i, run.method) for i in joined(items, reader(items))]
    return items + mismatched_items(items, reader) if Need.MISMATCHED in run.method.objective.needs else items


def joined(items: Sequence[Example], rows: Rows) -> list[Example]:
    """Items with their reference log-probs, matched by position and checked by length."""
    out = []
    for item, logps in zip(items, rows, strict=True):
        lengths = [len(c.ids) for c in item.tokens.completions]
        if lengths != [len(row) for row in logps]:
            raise ValueError(f"reference log-probs do not fit prompt {item.tokens.group.prompt.id}")
        out.append(replace(item, per_token={**item.per_token, "ref_logp": logps}))
    return out


def labelled(item: Example, method: Method) -> Example:
    """Scores as a field; for labels also the advantage +-1 - c, and the reference, if any, as the behaviour policy."""
    scores = item.tokens.group.scores
    fields = {"score": scores} if method.data != DEMONSTRATIONS else {}
    if method.label_baseline is None:
        return replace(item, per_completion={**item.per_completion, **fields})
    advantage = tuple((1.0 if s > 0 else -1.0) - method.label_baseline for s in scores)
    author = {"behaviour_logp": item.per_token["ref_logp"]} if method.reference != "none" else {}
    per_completion = {**item.per_completion, **fields, "advantage": advantage}
    return replace(item, per_completion=per_completion, per_token={**item.per_token, **author})


def frozen_start(run: TrainingRun) -> Policy:
    """The policy every arm starts from, without gradients; the one the policy is compared to exactly, if it is."""
    if (known := getattr(run.model, "frozen", None)) is not None:
        return known
    return open_policy(run.inputs["start"], run.spec.setup.compute, run.device, run.ledger).requires_grad_(False)


def reference_network(run: TrainingRun) -> Model:
    """What says the start's log-probs: the policy itself with its adapter taken off, or a frozen copy."""
    adapter = run.model.adapter
    alone = adapter is not None and not adapter.modules_to_save and getattr(run.model, "frozen", None) is None
    return Start(run.model) if alone else frozen_start(run)


def reference_reader(run: TrainingRun, frozen: Model | None = None) -> Callable[[Sequence[Example]], Rows]:
    """Log-probs under the frozen start, for rows that no cache can know in advance."""
    network = reference_network(run) if frozen is None else frozen

    def logps(items: Sequence[Example]) -> Rows:
        with run.ledger.passes("reference"):
            return reading(run, network, frozenset({Head.LOGP}), items)[Head.LOGP]

    return logps


def reading(run: TrainingRun, model: Model, heads: frozenset[Head], items: Sequence[Example]) -> dict[Head, Rows]:
    """What `model` says of items, at this run's temperature."""
    budget = run.spec.train.tokens_per_microbatch
    return read(model, items, heads, tokens_per_microbatch=budget, temperature=run.temperature, device=run.device)
