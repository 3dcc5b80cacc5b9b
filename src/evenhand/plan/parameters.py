"""Which of a method's parameters a stage's spec names, so that stored results stay found when a method gains a parameter."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evenhand.methods import METHODS

if TYPE_CHECKING:
    from evenhand.spec.arms import Arm

FIRST = {
    "sft": "reduce",
    "reward_model": "margin_scale centring",
    "local_reward_model": "beta",
    "preference_model": "",
    "dpo": "beta",
    "cdpo": "beta flip",
    "robust_dpo": "beta flip",
    "ipo": "tau",
    "ipo_mean": "tau",
    "rso_hinge": "beta",
    "slic": "margin likelihood",
    "simpo": "beta margin",
    "aot": "beta",
    "aot_paired": "beta",
    "orpo": "weight",
    "orpo_odds": "",
    "kto": "beta weight_desirable weight_undesirable",
    "topr": "baseline",
    "rpo": "beta likelihood",
    "r_dpo": "beta alpha",
    "reinforce": "completions_per_prompt baseline kl entropy",
    "ppo": "completions_per_prompt kl kl_target clip value value_clip updates epochs gamma lam entropy",
    "rloo": "completions_per_prompt kl entropy",
    "rank_advantage": "completions_per_prompt kl",
    "grpo": "completions_per_prompt kl kl_estimator low high updates epochs entropy importance",
    "dr_grpo": "completions_per_prompt low high updates entropy importance",
    "dapo": "completions_per_prompt low high refill overlong mask_truncated updates entropy importance",
    "gspo": "completions_per_prompt low high updates",
    "cispo": "completions_per_prompt low high updates",
    "topr_online": "completions_per_prompt baseline updates",
    "online_dpo": "completions_per_prompt beta",
    "batched_online_dpo": "completions_per_prompt beta",
    "iterative_dpo": (
        "rounds epochs completions_per_prompt temperatures beta likelihood length_penalty reference accumulate hybrid partner"
    ),
    "raft": "completions_per_prompt updates",
}
"""The parameters that methods had when their results were first stored; these are always named."""


WEIGHTED = ("aot", "aot_paired", "slic", "orpo", "rpo")
"""Methods that came to heed the weights of pairs (rankings, soft labels) after results had been stored."""


def revision(arm: Arm, *, weighted: bool) -> dict[str, int]:
    """A number that a stage's spec names where the method's result is another than it was, and nowhere else.

    `weighted`: the data may hold rankings or soft labels. KTO's held-out loss had no reference point; rounds of fewer steps than
    epochs sampled a fraction of a step's prompts.
    """
    given, steps = arm.parameters, arm.train.steps
    mixed = bool(given.get("hybrid") and given.get("likelihood"))
    short = arm.method == "iterative_dpo" and steps is not None and -(-steps // given["rounds"]) < given["epochs"]
    changed = weighted and (arm.method in WEIGHTED or mixed)
    return {"revision": 1} if changed or short or (arm.method == "kto" and arm.train.evaluate_every) else {}


def decisive(method: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """A method's parameters without those that came later and stand at their default: such a run is the one that was stored.

    Methods that are not in `FIRST` name every parameter.

    >>> decisive("rloo", {"kl": 0.1, "importance": 0.0}), decisive("rloo", {"kl": 0.1, "importance": 2.0})
    ({'kl': 0.1}, {'kl': 0.1, 'importance': 2.0})
    """
    defaults = inspect.signature(METHODS[method]).parameters
    always = FIRST.get(method, " ".join(parameters)).split()
    return {k: v for k, v in parameters.items() if k in always or v != defaults[k].default}
