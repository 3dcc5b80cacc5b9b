"""The pair losses of `evenhand.core` by name, one line each: what each is given beside the two log-probs."""

from __future__ import annotations

from evenhand.core import pair_divergence, pair_length, pair_margin, pair_sides, pair_tokens
from evenhand.objectives.pairwise import pair_loss

# ---- functions of one margin --------------------------------------------------------------------------------------------
pair_loss()(pair_margin.exo)
pair_loss()(pair_margin.discopop)
pair_loss("gpo_squared")(pair_margin.squared)
pair_loss("gpo_truncated_squared")(pair_margin.truncated_squared)
pair_loss("gpo_exponential")(pair_margin.exponential)
pair_loss("gpo_savage")(pair_margin.savage)
pair_loss()(pair_margin.focal)
pair_loss()(pair_margin.cauchy)
pair_loss(reference=False)(pair_margin.silu_margin)

# ---- functions of each answer's own log-ratio ---------------------------------------------------------------------------
pair_loss()(pair_sides.nca)
pair_loss()(pair_sides.bco_pair)
pair_loss()(pair_sides.sppo)
pair_loss()(pair_sides.apo_zero)
pair_loss()(pair_sides.apo_down)
pair_loss()(pair_sides.cal_dpo)
pair_loss()(pair_sides.c2_dpo)
pair_loss()(pair_sides.positive)
pair_loss()(pair_sides.balanced)
pair_loss()(pair_sides.minor)
pair_loss()(pair_sides.shifted)
pair_loss()(pair_sides.entropy_scaled)
pair_loss()(pair_sides.calibrated)

# ---- another divergence -------------------------------------------------------------------------------------------------
pair_loss()(pair_divergence.f_dpo_forward_kl)
pair_loss()(pair_divergence.f_dpo_jensen_shannon)
pair_loss()(pair_divergence.f_dpo_alpha)
pair_loss()(pair_divergence.chi_po)

# ---- length-means -------------------------------------------------------------------------------------------------------
pair_loss(per="mean")(pair_length.dpo_norm)
pair_loss(per="mean")(pair_length.rainbow)
pair_loss(per="mean", reference=False)(pair_length.alpha_po)
pair_loss(per="mean", reference=False)(pair_length.relu_margin)
pair_loss(per="mean", reference=False)(pair_length.absolute_odds)

# ---- tokens, scores, statistics of the vocabulary -----------------------------------------------------------------------
pair_loss(per="token", fields=("tokens",))(pair_tokens.ld_dpo)
pair_loss(per="token", fields=("tokens", "uniform"))(pair_tokens.sam_po)
pair_loss(fields=("alignment",))(pair_tokens.wpo)
pair_loss(fields=("position_kl",))(pair_tokens.tdpo1)
pair_loss(fields=("position_kl",))(pair_tokens.tdpo2)
pair_loss(fields=("dispersion",))(pair_tokens.mallows)
pair_loss(fields=("gap",))(pair_tokens.odpo)
pair_loss(fields=("gap",))(pair_tokens.rebel)
pair_loss(fields=("gap",))(pair_tokens.soft_dpo)
pair_loss(fields=("old",))(pair_tokens.inpo)
