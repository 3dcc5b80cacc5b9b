"""Learning from rollouts: what a method says of them (`Rollouts` and its parts), and how a new credit or selection is added."""

from evenhand.train.rollouts.credits import CREDITS, CompletionCredit, FixedBaseline, Gae, GroupCredit, credit
from evenhand.train.rollouts.experience import Credit, Experience
from evenhand.train.rollouts.kl import KlPenalty
from evenhand.train.rollouts.plan import Rollouts
from evenhand.train.rollouts.sampler import Exploration
from evenhand.train.rollouts.schedule import Schedule
from evenhand.train.rollouts.selections import SELECTIONS, Pairing, Picking, rejection, selection
from evenhand.train.rollouts.shaping import LengthPenalty, Shaping, Truncation
from evenhand.train.rollouts.turn_credits import TurnCredit

__all__ = [
    "CREDITS", "SELECTIONS", "CompletionCredit", "Credit", "Experience", "Exploration", "FixedBaseline", "Gae", "GroupCredit",
    "KlPenalty", "LengthPenalty", "Pairing", "Picking", "Rollouts", "Schedule", "Shaping", "Truncation", "TurnCredit", "credit",
    "rejection", "selection",
]  # fmt: skip
