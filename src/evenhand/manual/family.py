"""The family tree of the methods, and where else each is found: two sections of docs/methods.md."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from statistics import median

from evenhand.methods import METHODS

TOOLS = {"TRL": "TRL 1.16", "OpenRLHF": "OpenRLHF", "verl": "verl", "study": "the 51-algorithm study"}
ONLINE: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "raft": ("sft", "the best of its own samples", {"study": "~rft"}),
    "reinforce": ("", "", {"OpenRLHF": "reinforce", "verl": "reinforce"}),
    "ppo": ("reinforce", "a value per token, a clipped ratio", {"OpenRLHF": "ppo", "verl": "ppo", "study": "ppo"}),
    "rloo": ("reinforce", "the others of the group as baseline", {"TRL": "RLOOTrainer", "OpenRLHF": "rloo", "verl": "rloo"}),
    "rank_advantage": ("rloo", "ranks in place of rewards", {}),
    "grpo": ("rloo", "z-scores of the group, clipped ratio, KL in the loss",
             {"TRL": "grpo", "OpenRLHF": "group_norm", "verl": "grpo", "study": "grpo"}),
    "dr_grpo": ("grpo", "no deviation, constant length", {"TRL": "dr_grpo", "OpenRLHF": "dr_grpo", "verl": "dr_grpo"}),
    "dapo": ("grpo", "every token alike, clip-higher, flat groups refilled", {"TRL": "dapo", "verl": "dapo"}),
    "gspo": ("grpo", "the ratio of the whole answer", {"TRL": "gspo", "OpenRLHF": "gspo", "verl": "gspo", "study": "gspo"}),
    "cispo": ("grpo", "the ratio as a detached, capped weight",
              {"TRL": "~cispo, absolute cap", "verl": "cispo", "study": "~cispo, other caps"}),
    "topr_online": ("topr", "on its own samples", {}),
    "online_dpo": ("dpo", "fresh pairs in every step", {"TRL": "OnlineDPOTrainer", "study": "~offline only"}),
    "batched_online_dpo": ("online_dpo", "all pairs sampled once", {}),
    "iterative_dpo": ("online_dpo", "rounds of sampling", {}),
    "reinforce_pp": ("reinforce", "KL per token, whitened over the step", {"TRL": "~", "OpenRLHF": "~", "verl": "reinforce++"}),
    "reinforce_pp_baseline": ("reinforce_pp", "the group's mean off first", {"OpenRLHF": "yes", "verl": "yes"}),
    "remax": ("reinforce", "the greedy answer as baseline", {"verl": "remax"}),
    "opo": ("rloo", "a mean weighted by length", {"verl": "opo"}),
    "gpg": ("rloo", "flat groups rescaled away", {"verl": "~gpg, other scale"}),
    "maxrl": ("rloo", "divided by the group's mean", {}),
    "pass_at_k": ("rloo", "credit for pass@k", {"verl": "~divided by the deviation"}),
    "pass_at_k_training": ("grpo", "credit for pass@k", {}),
    "max_minus_second": ("rloo", "the best answer alone, against the second", {"verl": "~divided by the deviation"}),
    "gdpo": ("grpo", "each reward's own z-score", {"TRL": "normalize_then_sum", "verl": "gdpo"}),
    "lite_ppo": ("grpo", "the deviation of the whole batch", {"TRL": "scale_rewards: batch"}),
    "vapo": ("ppo", "lambda by length", {}),
    "gmpo": ("grpo", "a geometric mean of ratios", {"TRL": "gmpo", "verl": "gmpo"}),
    "sapo": ("grpo", "a soft gate for the clip", {"TRL": "sapo", "verl": "sapo"}),
    "vespo": ("gspo", "a smooth weight of the whole ratio", {"TRL": "vespo"}),
    "dppo": ("grpo", "a trust region in probabilities", {"verl": "dppo"}),
    "luspo": ("gspo", "times the length", {"TRL": "luspo"}),
    "gkd": ("sft", "a teacher's whole distribution, partly on its own samples", {"TRL": "GKDTrainer"}),
    "on_policy_distillation": ("reinforce", "a teacher's log-ratio as advantage", {"TRL": "DistillationTrainer", "verl": "opd"}),
    "exact_distillation": ("gkd", "the reverse KL on its own samples alone", {}),
    "clip_cov": ("grpo", "tokens of high covariance dropped", {"verl": "clip_cov"}),
    "kl_cov": ("grpo", "tokens of high covariance held back", {"verl": "kl_cov"}),
    "top_entropy": ("grpo", "the tokens of highest entropy alone", {"TRL": "top_entropy_quantile"}),
}  # fmt: skip
"""Of methods on rollouts, in the words of the facts that stand beside the others."""


def facts() -> dict[str, tuple[str, str, Mapping[str, str]]]:
    """Every method with the one that it is made of ("" for none), what differs, and its names elsewhere."""
    none: Mapping[str, str] = {}
    found = {}
    for name in METHODS:
        declared = METHODS.entries[name].facts
        known = ONLINE.get(name, ("", "", none))
        found[name] = (
            declared.get("of", known[0]), declared.get("differs", known[1]), declared.get("elsewhere", known[2]),
        )  # fmt: skip
    return found


def tree() -> str:
    """A nested list: below each method those that change one thing of it."""
    known = facts()

    def lines(parent: str, depth: int) -> Iterator[str]:
        for name, (of, differs, _) in known.items():
            if of == parent:
                yield f"{'  ' * depth}- [{name}](#{name})" + (f": {differs}" if differs else "")
                yield from lines(name, depth + 1)

    size = median(map(declared, METHODS))
    about = (
        f"{len(METHODS)} methods. Below each stand those that change one thing of it. A declaration has {size:g} lines in the"
        " median, its docstring aside."
    )
    return f"## The family\n\n{about}\n\n" + "\n".join(lines("", 0))


def declared(name: str) -> int:
    """Lines of a method's declaration without its docstring."""
    (function,) = ast.parse(inspect.getsource(METHODS[name])).body
    assert isinstance(function, ast.FunctionDef)
    assert function.end_lineno is not None
    first, rest = function.body[0], function.body[1:]
    begin = min([function.lineno, *(d.lineno for d in function.decorator_list)])
    return function.end_lineno - begin + 1 - ((first.end_lineno or 0) - first.lineno + 1 if rest else 0)


def coverage() -> str:
    """A table of the methods that other tools have, and how many of these are only here."""
    known = {name: elsewhere for name, (_, _, elsewhere) in facts().items()}
    there = {name: found for name, found in known.items() if found}
    rows = [f"| [{name}](#{name}) | {' | '.join(found.get(tool, '') for tool in TOOLS)} |" for name, found in there.items()]
    alone = [f"`{name}`" for name, found in known.items() if not found]
    head = f"| here | {' | '.join(TOOLS.values())} |\n|---|{'---|' * len(TOOLS)}"
    text = (
        "## Where else\n\nNames under which other tools have a method; after a `~` a variant, or what differs from the paper.\n"
        "The study is arXiv:2603.19335 with its code. Read off the code of TRL 1.16.0, OpenRLHF 3c3be62, verl 1dda039 and oxRL"
        " 2a2bd5d."
    )
    return f"{text}\n\n{head}\n" + "\n".join(rows) + f"\n\nIn none of them: {', '.join(alone)}."
