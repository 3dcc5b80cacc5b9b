"""Trackers: lines (a file), TensorBoard, Weights & Biases, trackio, MLflow, and those of plugins."""

from evenhand.trackers import tools  # noqa: F401  they register themselves
from evenhand.trackers.protocol import TRACKERS, TrackedRun, Tracker, tracker

__all__ = ["TRACKERS", "TrackedRun", "Tracker", "tracker"]
