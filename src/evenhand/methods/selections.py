"""Methods that select from rollouts: a pair of each group for a preference loss, or its best answer for likelihood."""

from __future__ import annotations

from dataclasses import replace

from evenhand.errors import UserError, one_of
from evenhand.methods import strengths
from evenhand.methods.pairs import with_likelihood
from evenhand.objectives import Likelihood, Pairwise
from evenhand.train.method import PROMPTS, Method, method
from evenhand.train.policies import GENERATOR, INITIAL_POLICY, NONE, PREVIOUS
from evenhand.train.rollouts import Exploration, LengthPenalty, Rollouts, Schedule, Truncation, selections
from evenhand.types import Need


def _selected(loss: str, rollouts: Rollouts, *, reference: str, **parameters: float) -> Method:
    objective = Pairwise(loss=loss, parameters=parameters)
    return Method(objective=objective, data=PROMPTS, rollouts=rollouts, reference=reference, learning_rate=5e-7)


@method(
    space=strengths.BETA,
    of="dpo",
    differs="fresh pairs in every step",
    elsewhere={"TRL": "OnlineDPOTrainer", "study": "~offline only"},
)
def online_dpo(*, completions_per_prompt: int = 2, beta: float = 0.1) -> Method:
    """DPO on fresh pairs, best against worst of the group, reference the start (Guo et al. 2024, arXiv:2402.04792)."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit=selections.best_vs_worst)
    return _selected("dpo", rollouts, reference=INITIAL_POLICY, beta=beta)


@method(space=strengths.BETA, of="online_dpo", differs="all pairs sampled once")
def batched_online_dpo(*, steps: int, completions_per_prompt: int = 25, beta: float = 0.05) -> Method:
    """All pairs sampled once from the start, which is the reference; logits scaled by 1/T
    ("All Roads Lead to Likelihood", section 3)."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit=selections.best_vs_worst, schedule=Schedule(steps))
    return replace(_selected("dpo", rollouts, reference=GENERATOR, beta=beta), learning_rate=3e-7)


@method(space=strengths.BETA, of="online_dpo", differs="rounds of sampling")
def iterative_dpo(
    *,
    steps: int,
    rounds: int = 3,
    epochs: int = 2,
    completions_per_prompt: int = 8,
    temperatures: tuple[float, ...] = (1.0, 0.7),
    beta: float = 0.1,
    likelihood: float = 0.0,
    length_penalty: float = 0.0,
    reference: str = "start",
    accumulate: bool = False,
    hybrid: bool = False,
    partner: str = "none",
    initialise: str = "last",
    pairs: str = "best_vs_worst",
    rejection_temperature: float = 0.5,
) -> Method:
    """Online iterative RLHF: each round samples at mixed temperatures, takes best against worst, trains DPO
    (Dong et al. 2024, algorithm 2). `reference` is start (the text) or generator (the released script); `initialise` trains a
    round from the last one's weights or from the start (the algorithm as printed, with `accumulate`; its learning rate then
    starts anew every round); `hybrid` adds the data's own pairs to every round. A round's steps share all it learns from, so that
    `accumulate` and `hybrid` make them larger. The algorithm's last line, the best round on a validation
    set, is `train: {keep_checkpoint: best}`.

    Exploration (section 3.3): `temperatures`; `partner: start | previous` lets the frozen start or the last round's policy write
    the second half of every group; `pairs: best_vs_random` sets a plain sample against the best of n, and `pairs: rejection`
    resamples two by exp(reward / rejection_temperature) (RSO, Liu et al. 2023, algorithm 1)."""
    known = {name: s for name, s in selections.SELECTIONS.items() if Need.PAIRS in s.provides}
    known["rejection"] = selections.rejection(rejection_temperature)
    one_of("partner", partner, (NONE, INITIAL_POLICY, PREVIOUS), where="iterative_dpo")
    one_of("reference", reference, (INITIAL_POLICY, GENERATOR), where="iterative_dpo")
    if hybrid and reference != INITIAL_POLICY:
        raise UserError("hybrid data need a fixed reference", where="iterative_dpo", fix="use `reference: start`")
    updates = -(-steps // rounds)
    rollouts = Rollouts(
        completions_per_prompt=completions_per_prompt, exploration=Exploration(temperatures=temperatures, partner=partner),
        shaping=LengthPenalty(per_character=length_penalty), credit=known[one_of("pairs", pairs, known, where="iterative_dpo")],
        schedule=Schedule(updates, min(epochs, updates), accumulate=accumulate, hybrid=hybrid, initialise=initialise),
    )  # fmt: skip
    pair = Pairwise(loss="dpo", parameters={"beta": beta})
    objective = with_likelihood(pair, likelihood) if likelihood else pair
    return Method(objective=objective, data=PROMPTS, rollouts=rollouts, reference=reference, temperature=1.0, learning_rate=5e-7)


@method(of="sft", differs="the best of its own samples", elsewhere={"study": "~rft"})
def raft(*, completions_per_prompt: int = 8, updates: int = 1, mask_truncated: bool = False) -> Method:
    """Reward-ranked fine-tuning: likelihood of the best of each group (Dong et al. 2023, arXiv:2304.06767). With
    `mask_truncated` a best answer that the limit cut is not imitated.
    Reduces to `sft` on the answers that were kept."""
    rollouts = Rollouts(
        completions_per_prompt=completions_per_prompt, credit=selections.best, schedule=Schedule(updates),
        truncation=Truncation(mask_truncated),
    )  # fmt: skip
    return Method(objective=Likelihood(), data=PROMPTS, rollouts=rollouts, temperature=1.0, learning_rate=1e-6)
