"""docs/methods.md, from the code: `python -m evenhand.experiment.catalogue docs/methods.md` writes it anew."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evenhand.core import credit, policy, preference, unpaired
from evenhand.experiment.arms import BEST_OF_N, INJECTED, START, best_of_n
from evenhand.methods import METHODS, Method, build
from evenhand.objectives import (
    PAIR_LOSSES,
    SURROGATES,
    BradleyTerry,
    Combined,
    Kto,
    Likelihood,
    Pairwise,
    PolicyGradient,
    Transport,
)
from evenhand.types import Need

HEAD = """# Methods

Written by `python -m evenhand.experiment.catalogue docs/methods.md` from the code; a test keeps it current. Every method is one
expression in `src/evenhand/methods.py` over five coordinates: where experience comes from (**source**), what it is judged by
(**signal**), how a judgement becomes a number per completion, token or pair (**credit**), what is minimised (**objective**), and
what the policy is held to (**reference**). Settings are keys of an arm; the learning rate is the default where an experiment
names none. What a method reduces to is tested as an equal gradient (`tests/battery/test_reductions.py`), where it goes on a tree
of listed answers (`tests/battery/test_bandit.py`), and how it moves a small network (`tests/golden`).

Notation: `nls(x) = -log sigmoid(x)`; `D` is the log-ratio margin `(chosen - ref_chosen) - (rejected - ref_rejected)`; `rho` the
ratio of the policy to the rollout's weights; `A` the advantage; `sg` stops the gradient; all log-probs in nats. On where a KL
term belongs see [kl.md](kl.md); on adding an objective see [extending.md](extending.md).
"""
DATA = {
    "demonstrations": "demonstrations",
    "preferences": "preference pairs, graded pairs or rankings",
    "binary": "answers labelled good or bad, from labels or from pairs",
    "comparisons": "preference pairs, written as questions",
}
REDUCTIONS = {
    "token_mean": "every token of the step alike",
    "sequence_mean": "each completion's mean, then their mean",
    "sequence_sum": "each completion's sum, then their mean",
}


def formula(function: Any) -> str:
    """The formula that a docstring of `evenhand.core` states: its first line that begins with one, up to the explanation.

    >>> formula(preference.dpo), formula(credit.centre)
    ('`nls(beta D)`', '`A_i = r_i - mean(r)` within each group')
    """
    lines = (inspect.getdoc(function) or "").split("\n")
    stated = next((line for line in lines if line.startswith("`")), lines[0])
    return re.split(r": |\.(?=\s+[A-Z`]|$)", stated)[0]


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
        yield formula(PAIR_LOSSES[objective.loss].function)
    elif isinstance(objective, Transport):
        yield formula(getattr(preference, f"aot_{objective.form}"))
    elif isinstance(objective, Kto):
        yield formula(unpaired.kto)
    elif isinstance(objective, BradleyTerry):
        yield formula(preference.bradley_terry)
    elif isinstance(objective, Likelihood):
        on = "chosen answers" if objective.on == "chosen" else "answers"
        yield f"`-logp` of {on}; {reduced(objective.reduce)}"
    elif isinstance(objective, PolicyGradient):
        yield from gradient_equations(objective)


def gradient_equations(objective: PolicyGradient) -> Iterator[str]:
    whole = SURROGATES[objective.surrogate].per_sequence
    how = "mean over completions" if whole else reduced(objective.reduce)
    yield f"{formula(getattr(policy, objective.surrogate))}; {how}"
    if objective.kl:
        yield f"{objective.kl:g} x the mean of `{objective.kl_estimator}` per token, under the same reduction"
    if objective.value:
        yield f"{objective.value:g} x {formula(policy.value_loss)}"


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
        every = "every step" if plan.updates == 1 else f"every {plan.updates} steps"
        yield "source", f"{plan.completions_per_prompt} completions per prompt, sampled anew {every}"
        yield "signal", "any reward" + (f"; KL (k1) in the reward, x {plan.kl:g}" if plan.kl else "")
        yield "credit", rollout_credit(method)
    yield "objective", " + ".join(equations(method.objective))
    references = {"none": "none", "start": "the policy every arm starts from, frozen", "generator": "the policy that sampled"}
    yield "reference", references[method.reference]


def fixed_credit(method: Method) -> str:
    if method.label_baseline is not None:
        return f"label +1 or -1, less {method.label_baseline:g}"
    if method.data == "preferences":
        return "all pairs of a group, each group weighing 1"
    return "label as it is" if method.data == "binary" else "every answer alike"


def rollout_credit(method: Method) -> str:
    plan = method.rollouts
    assert plan is not None
    if plan.select != "none":
        return {"best": "the best of each group", "best_vs_worst": "best against worst of each group"}[plan.select]
    functions = {"none": credit.fixed_baseline, "gae": credit.gae}
    return f"{plan.credit}: {formula(functions.get(plan.credit) or getattr(credit, plan.credit))}"


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
    return str(round(value, 6)) if isinstance(value, float) else str(value)


def needs(method: Method) -> str:
    """What an experiment must have for this method."""
    asked = ["a reward", "prompts"] if method.online else [DATA[method.data]]
    if method.reference != "none":
        asked.append("a reference's log-probs (computed once)" if not method.online else "a frozen copy of the start")
    if method.network == "value":
        asked.append("a value head")
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


def page() -> str:
    """The whole page."""
    index = ["| method | learns from | reference | reduces to |", "|---|---|---|---|"]
    for name in METHODS:
        method = build(name, {}, steps=100, max_tokens=128)
        source = "rollouts" if method.online else method.data
        index.append(f"| [{name}](#{name}) | {source} | {method.reference} | {paragraphs(METHODS[name])[1].rstrip('.')} |")
    return "\n\n".join([HEAD.rstrip(), "\n".join(index), *map(entry, METHODS), untrained()]) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page())
