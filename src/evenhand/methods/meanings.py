"""What the parameters of methods mean: one word for one thing wherever it occurs, `METHOD.NAME` where a method means another."""

from __future__ import annotations

import re
from collections.abc import Mapping

PARAMETERS: Mapping[str, str] = {
    "accumulate": "Whether a round learns from the pairs of all rounds so far.",
    "advantage": "The credit: standardise, standardise_population, centre, leave_one_out, rank or another that compares.",
    "k": "How many answers count by their best.",
    "pass_at_k.baseline": "leave_one_out (the best of k - 1 others) or none.",
    "warmup": "Rollouts in which the critic learns alone.",
    "vapo.likelihood": "Weight of the likelihood of answers whose reward is above 0.",
    "gdpo.weights": "Weight of each part of the reward, by its name; every part 1 where left out.",
    "gmpo.low": "How far a token's log-ratio may fall below 0 before it is held there. In nats.",
    "gmpo.high": "How far a token's log-ratio may rise above 0 before it is held there. In nats.",
    "dppo.low": "How far the probability of a bad answer's token may fall below the sampler's.",
    "dppo.high": "How far the probability of a good answer's token may rise above the sampler's.",
    "distance": "tv: the difference of probabilities; kl: of the token against all others, in nats.",
    "clip_cov.share": "Share of the step's tokens that lose their gradient.",
    "kl_cov.share": "Share of the step's tokens that are charged for moving.",
    "top_entropy.share": "Share of the step's tokens that learn, those of the highest entropy.",
    "least": "Least covariance of a token that may lose its gradient.",
    "most": "Largest covariance of a token that may lose its gradient.",
    "penalty": "Charge per nat that a chosen token has moved.",
    "on_policy": "Share of every step's prompts that the policy answers itself; the data answer the others.",
    "gkd.beta": "The divergence: 0 is KL(teacher, student), 1 KL(student, teacher), between them Jensen-Shannon's.",
    "exact_distillation.beta": "The divergence, as in gkd: 1 is KL(student, teacher).",
    "gkd.temperature": "Divides the logits of policy and teacher in the loss.",
    "baseline": "What is taken off the label +1 or -1.",
    "reinforce.baseline": "What is taken off the reward: batch_baseline, running_baseline, none, or value (a learned one).",
    "beta": "Strength of the hold on the reference: smaller lets the policy go further.",
    "simpo.beta": "Scale of the length-mean log-probs; there is no reference.",
    "local_reward_model.beta": "The reward is beta times the answer's log-prob.",
    "bootstrap_truncated": "Whether an answer that the limit cut is worth its last value instead of ending there.",
    "centring": "Weight of the squared mean score, which keeps scores around 0.",
    "clip": "How far the ratio to the rollout's policy may leave 1 before its gradient stops.",
    "completions_per_prompt": "Answers sampled for each prompt.",
    "critic": "Where the value is learned: head (on the policy) or separate (a network of its own).",
    "dual_clip": "Bound of what a bad token may cost, 3 is usual; 0 is off.",
    "entropy": "Weight of the entropy bonus.",
    "epochs": "Passes over each rollout.",
    "flip": "Share of labels that are taken to be wrong.",
    "gamma": "Discount of later tokens' rewards.",
    "high": "How far the ratio may rise above 1 before its gradient stops.",
    "hybrid": "Whether every round learns from the data's own pairs too.",
    "importance": "Cap of the weight that corrects for a sampler other than the trainer, 2 is usual; 0 is off.",
    "initialise": "What a round's weights start from: last (the round before) or start.",
    "kl": "Weight of the KL to the start.",
    "kl_estimator": "How the KL is estimated: k1, k2, k3, k3_ratio or exact (docs/kl.md).",
    "kl_in": "Where the KL is: off the reward, or beside the surrogate in the loss.",
    "kl_target": "The KL that the weight `kl` is steered to; 0 leaves it fixed. In nats.",
    "lam": "GAE's lambda: 1 is the whole return, 0 one step.",
    "length_penalty": "What is taken off the reward for each character.",
    "likelihood": "Weight of the chosen answer's likelihood.",
    "low": "How far the ratio may fall below 1 before its gradient stops.",
    "margin": "The margin that log-probs are to differ by. In nats.",
    "simpo.margin": "The margin that scaled length-mean log-probs are to differ by.",
    "margin_scale": "Weight of the data's own gaps of ratings as margins.",
    "mask_truncated": "Whether answers that the limit cut take no part in the loss.",
    "overlong": "Share of the completion limit over which a penalty rises to 1.",
    "pairs": "Which pairs a group gives: best_vs_worst, best_vs_random or rejection.",
    "partner": "Who writes the second half of every group: none, start or previous.",
    "reduce": "Whether every token of the step counts alike (token_mean) or every answer (sequence_mean).",
    "reference": "What a round's pairs are held to: start or generator.",
    "refill": "How often prompts are drawn anew in place of those whose answers are all rewarded alike.",
    "rejection_temperature": "Temperature of the rejection sampling of pairs. In units of the reward.",
    "rounds": "Rounds of sampling and learning.",
    "tau": "Strength of the hold on the reference: smaller lets the policy go further.",
    "temperature": "Divides the logits of policy and reference in the loss.",
    "temperatures": "Sampling temperatures that the answers to a prompt take in turn.",
    "truncated_in_baseline": "Whether answers that the limit cut count in their group's mean.",
    "updates": "Optimizer steps on each rollout.",
    "value": "Weight of the value loss.",
    "value_clip": "How far a value may move from the rollout's before its gradient stops.",
    "weight_desirable": "Weight of good answers.",
    "weight_undesirable": "Weight of bad answers.",
    "r_dpo.alpha": "What the implicit reward pays per token, as a length penalty. In nats.",
    "c2_dpo.weight": "Weight of the square by which the two log-ratios are out of balance.",
    "f_dpo.divergence": "reverse_kl, forward_kl, jensen_shannon or alpha.",
    "f_dpo.alpha": "The alpha of the divergence `alpha`, as in the paper; TRL's coefficient is 1 less it.",
    "alphapo.alpha": "Shape of the reward: 0 is SimPO's, above it unlikely answers count steeper.",
    "vapo.alpha": "GAE's lambda is 1 - 1 / (alpha n) for an answer of n tokens.",
    "correction": "How a sampler unlike the trainer is met, where `importance` is set: a name of `core/corrections.py`.",
    "importance_low": "The least of the weights that correct for a sampler other than the trainer.",
    "off_policy_mask": "Bad answers that the policy has left by so much are left out; 0 is off. In nats per token.",
    "dppo.cap": "The most that the ratio to the sampler counts.",
    "sapo.tau": "Width of the gate for good answers: larger is narrower.",
    "sapo.tau_negative": "Width of the gate for bad answers.",
    "vespo.k": "Power of the answer's ratio for good answers.",
    "vespo.decay": "How fast a good answer that has moved stops teaching.",
    "vespo.k_negative": "Power of the answer's ratio for bad answers.",
    "vespo.decay_negative": "How fast a bad answer that has moved stops teaching.",
    "discopop.width": "The paper's tau: how far the loss is bent around 0.",
    "mpo.quality": "Weight of the classification of each answer.",
    "mpo.preference": "Weight of DPO's loss.",
    "repo.margin": "The margin that length-mean log-probs are to differ by. In nats.",
    "alphapo.margin": "The margin that scaled rewards are to differ by.",
    "cpo_simpo.margin": "The margin that scaled length-mean log-probs are to differ by.",
    "cpo_simpo.beta": "Scale of the length-mean log-probs; there is no reference.",
    "alphapo.beta": "Scale of the reward; there is no reference.",
    "cpo.beta": "Scale of the log-probs; there is no reference.",
    "spo_silu.beta": "Scale of the log-probs; there is no reference.",
    "rainbow_po.margin": "The margin that all pairs share. In nats.",
    "orpo.weight": "Weight of the odds ratio beside the likelihood.",
    "n": "Samples that the answer is chosen from.",
}  # fmt: skip
_SENTENCE = re.compile(r"(?<=[.])\s+(?=[A-Z`])")


def meaning(method: str, parameter: str, about: str = "") -> str:
    """What a parameter of a method means: from the table, else the sentence of `about` (the method's docstring) that has it in
    backticks; "" where neither says anything.

    >>> meaning("dpo", "beta"), meaning("mine", "width", "A loss (me, 2020). `width` is the paper's tau. Reduces to `dpo`.")
    ('Strength of the hold on the reference: smaller lets the policy go further.', "`width` is the paper's tau.")
    """
    if (known := PARAMETERS.get(f"{method}.{parameter}", PARAMETERS.get(parameter))) is not None:
        return known
    sentences = _SENTENCE.split(" ".join(about.split()))
    said = next((text for text in sentences if f"`{parameter}`" in text), "")
    return said and said[0].upper() + said[1:].rstrip(".") + "."
