"""Statistics of controlled comparisons: arrays in, frozen dataclasses out. NumPy and SciPy only."""

from evenhand.stats.intervals import clustered_se, soft_wilson, t_interval, wilson
from evenhand.stats.planning import minimum_detectable_difference, power, prompts_needed, resolved_by
from evenhand.stats.reward_model import PairMetrics, agreement_by_length, calibration, length_bias, pair_metrics
from evenhand.stats.tests import equivalent, holm, mcnemar, permutation_test, sign_test, verdict
from evenhand.stats.twoway import Difference, WinRate, paired_difference, unmatched_difference, win_rate

__all__ = [
    "Difference",
    "PairMetrics",
    "WinRate",
    "agreement_by_length",
    "calibration",
    "clustered_se",
    "equivalent",
    "holm",
    "length_bias",
    "mcnemar",
    "minimum_detectable_difference",
    "pair_metrics",
    "paired_difference",
    "permutation_test",
    "power",
    "prompts_needed",
    "resolved_by",
    "sign_test",
    "soft_wilson",
    "t_interval",
    "unmatched_difference",
    "verdict",
    "wilson",
    "win_rate",
]
