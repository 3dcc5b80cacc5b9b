"""What the parameters of methods mean: one word for one thing wherever it occurs, `METHOD.NAME` where a method means another."""

from __future__ import annotations

from collections.abc import Mapping

PARAMETERS: Mapping[str, str] = {
    "accumulate": "Whether a round learns from the pairs of all rounds so far.",
    "advantage": "The credit: standardise, standardise_population, centre, leave_one_out or rank.",
    "alpha": "What the implicit reward pays per token, as a length penalty. In nats.",
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
    "weight": "Weight of the odds ratio beside the likelihood.",
    "weight_desirable": "Weight of good answers.",
    "weight_undesirable": "Weight of bad answers.",
    "n": "Samples that the answer is chosen from.",
}  # fmt: skip


def meaning(method: str, parameter: str) -> str:
    """What a parameter of a method means; "" for one that nobody has described (a plugin's says it in its docstring)."""
    return PARAMETERS.get(f"{method}.{parameter}", PARAMETERS.get(parameter, ""))
