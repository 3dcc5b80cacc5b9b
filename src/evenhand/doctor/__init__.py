"""Looks for the faults that let a run look healthy while it is wrong, before anything is trained."""

from evenhand.doctor import (  # noqa: F401  the checks register themselves
    budget,
    data,
    generation,
    learning_check,
    model,
    preferences,
    reward,
    reward_model,
    template,
    tokens,
)
from evenhand.doctor.context import CheckContext
from evenhand.doctor.examine import Diagnosis, Result, examine
from evenhand.doctor.registry import CHECKS, Check, Finding, Severity

__all__ = ["CHECKS", "Check", "CheckContext", "Diagnosis", "Finding", "Result", "Severity", "examine"]
