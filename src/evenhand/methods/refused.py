"""Names of other tools and papers that are answered instead of guessed: what they mean there, and what to use here."""

from evenhand.train.method import METHODS

METHODS.refuse(
    "kto_pair",
    why="its reference point is taken from the other, matched half of the pairs, and so is biased upwards",
    fix="use `kto`, whose reference point is of mismatched answers, or `apo_zero`, which has none",
)
METHODS.refuse(
    "spo",
    why="three papers have the name: win rates within the group, a SiLU on the margin, and a stabilised form",
    fix="use `spo_minimax` or `spo_silu`",
)
METHODS.refuse(
    "sdpo",
    why="three papers have the name: stepwise DPO, segment-level DPO and self-distillation",
    fix="use `stepwise_dpo` for the first, `exact_self_distillation` for the last",
)
METHODS.refuse(
    "lrml",
    why="the paper calls the method DiscoPOP and the loss LRML",
    fix="use `discopop`",
)
METHODS.refuse(
    "fdpo", why="it is DPO under an f-divergence in one paper, and a filtered DPO in another", fix="use `f_dpo` for the first"
)
METHODS.refuse(
    "apo", why="it is a pair of losses", fix="use `apo_zero` for data better than the model, `apo_down` for a better model"
)
METHODS.refuse("sgrpo", why="it is GRPO with a token clip, a token mean and z-scores: no new formula", fix="use `grpo` or `dapo`")
