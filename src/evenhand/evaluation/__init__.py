"""Evaluation beyond win rates: reward models on pairs, policies on texts, curves over n and KL, and other tools' files."""
