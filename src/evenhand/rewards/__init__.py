"""Reward signals: programs, trained models, and what is made of them. A reward sees whole groups; higher is better."""

from evenhand.rewards.registry import KINDS, get

__all__ = ["KINDS", "get"]
