"""DPO whose reference or whose worse answers move with the policy. Any method that is held to the start takes the same updates
of its reference by the arm's `reference_update: {every: k, mix: a}`."""

from __future__ import annotations

from evenhand.methods import strengths
from evenhand.methods.pairs import pairs
from evenhand.objectives import Pairwise
from evenhand.train.config import ReferenceUpdate
from evenhand.train.method import DEMONSTRATIONS, Method, method
from evenhand.train.policies import DATA, GENERATOR
from evenhand.train.rollouts import Exploration, Rollouts, Schedule
from evenhand.train.rollouts.given import GivenPreferred


@method(space={**strengths.BETA, "mix": (0.5, 0.6, 1.0)}, of="dpo", differs="the reference follows the policy",
        elsewhere={"TRL": "sync_ref_model"})  # fmt: skip
def tr_dpo(*, beta: float = 0.05, every: int = 512, mix: float = 0.6) -> Method:
    """Trust-region DPO: after `every` steps the reference becomes `mix` times the policy plus the rest of itself; `mix` 1 is the
    hard update, a copy (Gorbatovski et al. 2024, arXiv:2404.09656). Its log-probs are read anew in every step. The defaults are
    TRL's.
    Reduces to `dpo` while nothing has moved: with as many steps between two updates as there are steps."""
    return pairs("dpo", beta=beta).following(ReferenceUpdate(every=every, mix=mix))


@method(space=strengths.BETA, of="tr_dpo", differs="a copy at the end of each part of the data")
def stepwise_dpo(*, steps: int, parts: int = 3, beta: float = 0.1) -> Method:
    """Stepwise DPO (sDPO): the data in `parts`, the reference of each the policy that the one before ended with (Kim et al. 2024,
    arXiv:2403.19270). Over one epoch no pair is in two parts, which are drawn, not sorted by how hard they are. Optimizer and
    learning rate go on; the paper's runs of their own are arms of `dpo`, each with `initial_policy:` the one before.
    Reduces to `dpo` at parts = 1."""
    return pairs("dpo", beta=beta).following(ReferenceUpdate(every=-(-steps // parts)))


@method(space=strengths.BETA, of="iterative_dpo", differs="the data's answers against its own: no reward",
        elsewhere={"study": "~loss only"})  # fmt: skip
def spin(*, steps: int, rounds: int = 3, beta: float = 0.1) -> Method:
    """Self-play fine-tuning: in each round every demonstration is the better answer and one of the policy's own the worse, under
    DPO's loss against the policy that sampled (Chen et al. 2024, arXiv:2401.01335). It ends where policy and data cannot be
    told apart. Learns from demonstrations alone.
    Reduces to `dpo` on pairs of demonstrations and the start's samples at rounds = 1."""
    rollouts = Rollouts(
        completions_per_prompt=2, exploration=Exploration(partner=DATA), credit=GivenPreferred(),
        schedule=Schedule(-(-steps // rounds)),
    )  # fmt: skip
    objective = Pairwise(loss="dpo", parameters={"beta": beta})
    return Method(objective=objective, data=DEMONSTRATIONS, rollouts=rollouts, reference=GENERATOR, learning_rate=5e-7)
