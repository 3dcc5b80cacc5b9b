"""Objectives: thin frozen dataclasses over `evenhand.core` that return unreduced terms and their denominators."""

from evenhand.objectives import pair_losses
from evenhand.objectives.attributes import AttributeRegression, GeneralPreference
from evenhand.objectives.binary import Kto, Labelled
from evenhand.objectives.combined import Combined, part_of
from evenhand.objectives.direct_reward import DirectReward
from evenhand.objectives.distillation import Distillation
from evenhand.objectives.gold import BelowTheBest
from evenhand.objectives.k_answers import RatedGroups, RewardRegression
from evenhand.objectives.likelihood import Likelihood
from evenhand.objectives.optimism import Optimism
from evenhand.objectives.pairwise import PAIR_LOSSES, Pairwise, Transport, pair_loss
from evenhand.objectives.pairwise_step import STEP_RULES, SteeredPairs, step_rule
from evenhand.objectives.policy_gradient import PolicyGradient
from evenhand.objectives.registry import OBJECTIVES, from_json, objective, to_json
from evenhand.objectives.reward_model import BradleyTerry, Correctness
from evenhand.objectives.surrogates import SURROGATES, surrogate

__all__ = [
    "OBJECTIVES", "PAIR_LOSSES", "STEP_RULES", "SURROGATES", "AttributeRegression", "BelowTheBest", "BradleyTerry", "Combined",
    "Correctness", "DirectReward", "Distillation", "GeneralPreference", "Kto", "Labelled", "Likelihood", "Optimism", "Pairwise",
    "PolicyGradient", "RatedGroups", "RewardRegression", "SteeredPairs", "Transport", "from_json", "objective", "pair_loss",
    "pair_losses", "part_of", "step_rule", "surrogate", "to_json",
]  # fmt: skip
