"""docs/methods.md, from the code: `python -m evenhand.manual` writes it anew."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from typing import Any

from evenhand.core import distillation, k_answers, kto, policy, preference, surrogates
from evenhand.manual import family
from evenhand.methods import METHODS, Method, build
from evenhand.objectives import (
    PAIR_LOSSES,
    STEP_RULES,
    SURROGATES,
    BelowTheBest,
    BradleyTerry,
    Combined,
    Correctness,
    DirectReward,
    Distillation,
    Kto,
    Labelled,
    Likelihood,
    Pairwise,
    PolicyGradient,
    RatedGroups,
    RewardRegression,
    SteeredPairs,
    Transport,
)
from evenhand.objectives.binary import LABEL_LOSSES
from evenhand.objectives.k_answers import GROUP_LOSSES
from evenhand.objectives.likelihood import WEIGHTINGS
from evenhand.spec.arms import BEST_OF_N, INJECTED, START, best_of_n
from evenhand.train.rollouts.experience import stated
from evenhand.types import Need

HEAD = """# Methods

Written by `python -m evenhand.manual` from the code; a test keeps it current. Every method is one
expression in `src/evenhand/methods` over five coordinates: where experience comes from (**source**), what it is judged by
(**signal**), how a judgement becomes a number per completion, token or pair (**credit**), what is minimised (**objective**),
and what the policy is held to (**reference**). Settings are keys of an arm; the learning rate is the default where an
experiment names none. Any arm may keep its best weights on a validation set instead of its last
(`train: {keep_checkpoint: best}`, see [below](#the-best-weights)), and one that is held to the start may let that
reference follow the policy (`reference_update: {every: 100, mix: 0.5}`, as in [tr_dpo](#tr_dpo)). What a method reduces to is
tested as an equal gradient (`tests/battery/test_reductions.py`), where it goes on a tree of listed answers
(`tests/battery/test_bandit.py`), and how it moves a small network (`tests/golden`).

Notation: `nls(x) = -log sigmoid(x)`; `D` is the log-ratio margin `(chosen - ref_chosen) - (rejected - ref_rejected)`; `rho` the
ratio of the policy to the rollout's weights; `A` the advantage; `sg` stops the gradient; all log-probs in nats. On where a KL
term belongs see [kl.md](kl.md); on adding an objective see [extending.md](extending.md).
"""
DATA = {
    "demonstrations": "demonstrations",
    "preferences": "preference pairs, graded pairs or rankings",
    "binary": "answers labelled good or bad, from labels or from pairs",
    "comparisons": "preference pairs, written as questions",
    "rated": "answers with ratings by attribute",
}
REDUCTIONS = {
    "token_mean": "every token of the step alike",
    "sequence_mean": "each completion's mean, then their mean",
    "sequence_sum": "each completion's sum, then their mean",
}


def paragraphs(function: Any) -> tuple[str, str]:
    """A docstring as (what it is, what it reduces to), either on one line."""
    text = " ".join((inspect.getdoc(function) or "").split())
    head, mark, rest = text.partition("Reduces to ")
    return head.strip(), rest.strip() if mark else ""


def equations(objective: Any) -> Iterator[str]:
    """The formula of every term, as its function in `evenhand.core` states it."""
    if isinstance(objective, Combined):
        for part, coefficient in zip(objective.objectives, objective.coefficients, strict=True):
            yield from (f"{coefficient:g} x {line}" for line in equations(part))
    elif isinstance(objective, Pairwise):
        yield stated(PAIR_LOSSES[objective.loss].function)
    elif isinstance(objective, SteeredPairs):
        yield f"{stated(PAIR_LOSSES[objective.loss].function)}; {stated(STEP_RULES[objective.rule].function)}"
    elif isinstance(objective, Correctness):
        yield stated(Correctness)
    elif isinstance(objective, RatedGroups):
        yield stated(GROUP_LOSSES[objective.loss])
    elif isinstance(objective, RewardRegression):
        yield stated(k_answers.reward_regression)
    elif isinstance(objective, Labelled):
        yield stated(LABEL_LOSSES[objective.loss])
    elif isinstance(objective, Transport):
        yield stated(getattr(preference, f"aot_{objective.form}"))
    elif isinstance(objective, Kto):
        yield stated(kto.kto)
    elif isinstance(objective, BradleyTerry):
        yield stated(preference.bradley_terry)
    elif isinstance(objective, Likelihood):
        on = "answers" if objective.on in ("all", "rewarded") else f"{objective.on} answers"
        formula = "`-logp`" if objective.weighting == "even" else stated(WEIGHTINGS[objective.weighting])
        yield f"{formula} of {on}; {reduced(objective.reduce)}"
    elif isinstance(objective, BelowTheBest):
        yield from (f"{line}, of the answers below the gold one" for line in equations(objective.objective))
    elif isinstance(objective, DirectReward):
        yield stated(k_answers.direct_reward)
    elif isinstance(objective, PolicyGradient):
        yield from gradient_equations(objective)
    elif isinstance(objective, Distillation):
        yield f"{stated(distillation.generalised_jsd)}; {reduced(objective.reduce)}"
    else:
        yield stated(type(objective))


def gradient_equations(objective: PolicyGradient) -> Iterator[str]:
    whole = SURROGATES[objective.surrogate].per_sequence
    how = "mean over completions" if whole else reduced(objective.reduce)
    yield f"{stated(_surrogate(objective.surrogate))}; {how}"
    if objective.top_entropy:
        yield f"on the {objective.top_entropy:.0%} of the step's tokens that have the highest entropy"
    if objective.kl:
        yield f"{objective.kl:g} x the mean of `{objective.kl_estimator}` per token, under the same reduction"
    if objective.value:
        yield f"{objective.value:g} x {stated(policy.value_loss)}"


def _surrogate(name: str) -> Any:
    """Where a surrogate's formula stands: in `evenhand.core`, or with the function that was registered."""
    return next((getattr(m, name) for m in (policy, surrogates) if hasattr(m, name)), SURROGATES[name].function)


def reduced(name: str) -> str:
    return REDUCTIONS.get(
        name, f"each completion's sum divided by {name.partition(':')[2]}, the completion limit, then their mean"
    )


def coordinates(method: Method) -> Iterator[tuple[str, str]]:
    """The five coordinates in words."""
    plan = method.rollouts
    if plan is None:
        yield "source", f"fixed data: {DATA[method.data]}"
        yield "signal", "the data's own labels" if method.data != "demonstrations" else "none"
        yield "credit", fixed_credit(method)
    else:
        kl = plan.kl
        every = "every step" if plan.schedule.updates == 1 else f"every {plan.schedule.updates} steps"
        yield "source", f"{plan.completions_per_prompt} completions per prompt, sampled anew {every}"
        unrewarded = "a teacher's log-probs" if method.reference == "teacher" else "the data's own answers"
        rewarded = "any reward" if method.rewarded else unrewarded
        yield "signal", rewarded + (f"; KL ({kl.estimator}) in the reward, x {kl.coefficient:g}" if kl.coefficient else "")
        about = plan.credit.about()
        yield "credit", about[0].lower() + about[1:]
    yield "objective", " + ".join(equations(method.objective))
    references = {"teacher": "the teacher that the arm names"} | {
        "none": "none",
        "start": "the policy every arm starts from, frozen",
        "generator": "the policy that sampled",
    }
    moves, held = method.reference_update, references[method.reference]
    yield "reference", held if moves is None else f"the start, then every {moves.every} steps {moves.mix:g} of the policy in it"


def fixed_credit(method: Method) -> str:
    if method.label_baseline is not None:
        return f"label +1 or -1, less {method.label_baseline:g}"
    if method.data == "preferences" and Need.PAIRS not in method.objective.needs:
        return "all answers of a prompt at once, each prompt weighing 1"
    if method.data == "preferences":
        return "all pairs of a group, each group weighing 1"
    alike = {"binary": "label as it is", "rated": "every rating alike"}
    return alike.get(method.data, "every answer alike")


def defaults(function: Any) -> str:
    """Keyword parameters with their defaults; what the experiment gives is left out."""
    known = inspect.signature(function).parameters.values()
    return ", ".join(f"`{p.name}: {shown(p.default)}`" for p in known if p.name not in INJECTED)


def shown(value: Any) -> str:
    """A default as it stands in an experiment file.

    >>> shown(1 / 53), shown((1.0, 0.7)), shown(False), shown("none")
    ('0.018868', '[1.0, 0.7]', 'false', 'none')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(shown, value)) + "]"
    if isinstance(value, str) and "\n" in value:
        return json.dumps(value, ensure_ascii=False)
    return str(round(value, 6)) if isinstance(value, float) else str(value)


def needs(method: Method) -> str:
    """What an experiment must have for this method."""
    asked = ["a reward", "prompts"] if method.rewarded else [DATA.get(method.data, method.data)]
    if method.reference == "teacher":
        asked.append("a teacher of the policy's tokenizer (`teacher: {path: ...}`)")
    elif method.reference_update is not None:
        asked.append("a second copy of the policy, read in every step")
    elif method.reference != "none":
        asked.append("a reference's log-probs (computed once)" if not method.online else "a frozen copy of the start")
    if method.gate is not None:
        asked.append("an `attribute_reward_model` that `initial_policy` names")
    if method.network == "value":
        asked.append("a value head")
    if method.network == "critic":
        asked.append("a value network of its own")
    if Need.STATISTICS in method.objective.needs:
        asked.append("a pass without gradient over each step")
    return ", ".join(asked)


def entry(name: str) -> str:
    """One method's section."""
    method = build(name, {}, steps=100, max_tokens=128)
    about, reduces = paragraphs(METHODS[name])
    rows = [*coordinates(method), ("needs", needs(method)), ("settings", defaults(METHODS[name]) or "none")]
    rows.append(("learning rate", f"{method.learning_rate:g}"))
    if reduces:
        rows.append(("reduces to", reduces.rstrip(".")))
    return "\n".join([f"## {name}", "", about, "", *(f"- **{key}**: {value}" for key, value in rows)])


def untrained() -> str:
    """The two arms that train nothing."""
    return "\n".join(
        [
            "## Arms that train nothing", "",
            f"- `{START}`: the starting policy as it is.",
            f"- `{BEST_OF_N}`: the best of n samples of the starting policy by the arm's `reward`, ties drawn;"
            f" {defaults(best_of_n)}. Its KL is stated as at most log n - (n - 1)/n nats (Beirami et al. 2024).",
        ]
    )  # fmt: skip


BEST = """## The best weights

`train: {keep_checkpoint: best, validate_every: 20, validation_prompts: 64}` keeps the weights that did best
on prompts set apart for it:

- The prompts are a share of the data's own training prompts, chosen by their ids alone and the same for every seed. The arm
  learns from none of them, and none is of a held-out split, which belongs to the comparison.
- An arm with a `reward` is measured by the mean of that reward over one answer to each of them, sampled with the same random
  numbers every time; length penalties of the method are taken off, a KL is not. An offline arm may name a `reward` for this
  alone. Without a reward the method's own loss on these prompts' rows decides; that of a reward model is its likelihood.
  A reward model, or a loss on pairs, may go by its accuracy or margin there instead: `choose_by: accuracy`.
- `validate_every` counts steps and the last step is always measured; iterative methods may leave it out and are measured after
  every round, which is the last line of Dong et al.'s algorithm 2. The first of equal numbers wins. The start is measured too,
  for comparison, and is no candidate.
- `selection.json` beside the model has every number and the step that was chosen; `metrics.jsonl` has them as `validation`.
  Tokens and reward calls are in the ledger. A killed run goes on with the best weights so far and ends with the same bytes.

What it costs: the arm learns from that many prompts fewer, and the maximum of several noisy numbers is not an unbiased one: the
comparison on the held-out prompts is. Two arms of which one keeps its best are listed under what is not held equal."""


def page() -> str:
    """The whole page."""
    index = ["| method | learns from | reference | reduces to |", "|---|---|---|---|"]
    for name in METHODS:
        method = build(name, {}, steps=100, max_tokens=128)
        source = ("rollouts" if method.rewarded else "a teacher") if method.online else method.data
        index.append(f"| [{name}](#{name}) | {source} | {method.reference} | {paragraphs(METHODS[name])[1].rstrip('.')} |")
    sections = [HEAD.rstrip(), "\n".join(index), family.tree(), family.coverage(), *map(entry, METHODS), untrained(), BEST]
    return "\n\n".join(sections) + "\n"
