"""Statistics of controlled comparisons: arrays in, frozen dataclasses out. NumPy and SciPy only. See docs/statistics.md."""

from evenhand.stats.agreement import Agreement, agreement_of, cohen_kappa, fleiss_kappa, krippendorff_alpha, repeat_noise
from evenhand.stats.bestofn import BestOfN, best_of_n, exact_best_of_n, kl_bound, win_rate_bound
from evenhand.stats.bootstrap import bca_interval, crossed_interval, percentile_interval
from evenhand.stats.davidson import davidson_ratings
from evenhand.stats.difficulty import prompt_difficulty
from evenhand.stats.family import Judged, judged
from evenhand.stats.intervals import clustered_se, soft_wilson, t_interval, wilson
from evenhand.stats.length import (
    GPT4_CLASS_JUDGE,
    NEUTRAL,
    NO_PRIOR,
    Gamed,
    LengthControlled,
    LengthPrior,
    length_controlled,
    length_controlled_l1,
    predicted_length_controlled,
)
from evenhand.stats.looks import Look, look, spending
from evenhand.stats.mixed import MixedWinRate, mixed_win_rate
from evenhand.stats.planning import minimum_detectable_difference, planned_resolution, power, prompts_needed, resolved_by
from evenhand.stats.ratings import Rating, Ratings, bradley_terry_ratings
from evenhand.stats.reward_bench import reward_bench, reward_bench_2, rm_bench, ties_score
from evenhand.stats.reward_model import PairMetrics, agreement_by_length, calibration, length_bias, length_heatmap, pair_metrics
from evenhand.stats.style import style_controlled, style_gaps, style_of
from evenhand.stats.tests import equivalence_p, equivalent, holm, holm_by_family, mcnemar, permutation_test, sign_test, verdict
from evenhand.stats.text import distinct_n, length_entropy, repetition, self_overlap
from evenhand.stats.twoway import Difference, WinRate, paired_difference, unmatched_difference, win_rate

__all__ = [
    "GPT4_CLASS_JUDGE",
    "NEUTRAL",
    "NO_PRIOR",
    "Agreement",
    "BestOfN",
    "Difference",
    "Gamed",
    "Judged",
    "LengthControlled",
    "LengthPrior",
    "Look",
    "MixedWinRate",
    "PairMetrics",
    "Rating",
    "Ratings",
    "WinRate",
    "agreement_by_length",
    "agreement_of",
    "bca_interval",
    "best_of_n",
    "bradley_terry_ratings",
    "calibration",
    "clustered_se",
    "cohen_kappa",
    "crossed_interval",
    "davidson_ratings",
    "distinct_n",
    "equivalence_p",
    "equivalent",
    "exact_best_of_n",
    "fleiss_kappa",
    "holm",
    "holm_by_family",
    "judged",
    "kl_bound",
    "krippendorff_alpha",
    "length_bias",
    "length_controlled",
    "length_controlled_l1",
    "length_entropy",
    "length_heatmap",
    "look",
    "mcnemar",
    "minimum_detectable_difference",
    "mixed_win_rate",
    "pair_metrics",
    "paired_difference",
    "percentile_interval",
    "permutation_test",
    "planned_resolution",
    "power",
    "predicted_length_controlled",
    "prompt_difficulty",
    "prompts_needed",
    "repeat_noise",
    "repetition",
    "resolved_by",
    "reward_bench",
    "reward_bench_2",
    "rm_bench",
    "self_overlap",
    "sign_test",
    "soft_wilson",
    "spending",
    "style_controlled",
    "style_gaps",
    "style_of",
    "t_interval",
    "ties_score",
    "unmatched_difference",
    "verdict",
    "wilson",
    "win_rate",
    "win_rate_bound",
]
