"""Preference fine-tuning with everything else held equal."""

__version__ = "0.1.0"
