"""Environments: what answers the model between the turns of one answer, and the engine that samples such answers."""

from evenhand.environments.registry import EnvironmentContext, environment

__all__ = ["EnvironmentContext", "environment"]
