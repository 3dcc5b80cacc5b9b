"""Reward signals: programs, trained models, and what is made of them. A reward sees whole groups; higher is better."""

from evenhand.rewards.registry import REWARDS, Context, get, reward

__all__ = ["REWARDS", "Context", "get", "reward"]
