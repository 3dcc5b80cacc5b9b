"""Objectives: thin frozen dataclasses over `evenhand.core` that return unreduced terms and their denominators."""

from evenhand.objectives import pair_losses
from evenhand.objectives.binary import Kto
from evenhand.objectives.combined import Combined
from evenhand.objectives.likelihood import Likelihood
from evenhand.objectives.pairwise import PAIR_LOSSES, Pairwise, Transport, pair_loss
from evenhand.objectives.policy_gradient import PolicyGradient
from evenhand.objectives.registry import OBJECTIVES, from_json, objective, to_json
from evenhand.objectives.reward_model import BradleyTerry
from evenhand.objectives.surrogates import SURROGATES, surrogate

__all__ = [
    "OBJECTIVES", "PAIR_LOSSES", "SURROGATES", "BradleyTerry", "Combined", "Kto", "Likelihood", "Pairwise", "PolicyGradient",
    "Transport", "from_json", "objective", "pair_loss", "pair_losses", "surrogate", "to_json",
]  # fmt: skip
