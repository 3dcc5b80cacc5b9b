"""Offline and Online RLHF for Open-Ended Instruction Following (Shenoy and Zander)."""

from __future__ import annotations

from evenhand.manual.papers.item import Paper, code, example, figure, items, key, manual, method, result

ONLINE_OFFLINE = Paper(
    "online_offline",
    "Offline and Online RLHF for Open-Ended Instruction Following",
    "Shenoy and Zander: three offline and six online methods from one 1.5B instruct model, one reward model, one judge.",
    items(
        {
            "Equation 1": (
                "the margin: the pair's log-ratio under the policy less that under the reference",
                (code("core.preference.dpo"), figure("margin")),
            ),
            "Equation 2": ("DPO", (method("dpo"), code("core.preference.dpo"))),
            "Equation 3": (
                "IPO: the margin's squared distance from 1/(2 beta); `tau` here is that beta",
                (method("ipo"), code("core.preference.ipo")),
            ),
            "Equation 4": (
                "AOT: sorted chosen against sorted rejected answers of a step",
                (method("aot"), method("aot_paired"), code("core.aot.aot_unpaired")),
            ),
            "Equation 5": (
                "the reward model's Bradley-Terry loss",
                (method("reward_model"), code("core.preference.bradley_terry")),
            ),
            "Equation 6": ("the group's z-score as advantage", (method("grpo"), code("core.credit.standardise"))),
            "Equation 7": (
                "the rank as advantage. The text around it speaks of leave-one-out, which is another formula; both are here",
                (method("rank_advantage"), method("rloo"), code("core.credit.rank"), code("core.credit.leave_one_out")),
            ),
            "Table 1": (
                "the online variants, each with one thing changed",
                (method("grpo"), method("online_dpo"), method("raft"), example("offline_and_online/small.yaml")),
            ),
            "Table 2": (
                "win rates of DPO, IPO, AOT, GRPO, Dr.GRPO and GSPO against the start",
                (result("offline_and_online"), example("offline_and_online/small.yaml"), example("offline_and_online/full.yaml")),
            ),
            "Table 3": (
                "a reward model's held-out accuracy and margin at three checkpoints: `heldout/...` of its metrics",
                (example("offline_and_online/small.yaml"), key("train.evaluate_every"), manual("reward_models")),
            ),
            "Table 4": (
                "win rates of RLOO, online DPO and RAFT beside GRPO",
                (result("offline_and_online"), result("why_they_fail")),
            ),
            "Figure 1": ("table 2 drawn", (figure("win_rates"), result("offline_and_online"))),
            "Figure 2": (
                "reward and KL over the steps of the online methods",
                (figure("reward"), figure("kl"), result("offline_and_online"), manual("monitoring")),
            ),
            "Figure 3": (
                "table 3 drawn",
                (figure("heldout/loss"),),
                "held-out accuracy and margin are in `metrics.jsonl`, not drawn",
            ),
            "Figure 4": ("table 4 drawn", (figure("win_rates"), result("offline_and_online"))),
        }
    ),
)
