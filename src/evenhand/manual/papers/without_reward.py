"""RL Fine-Tuning of Large Language Models (de Bruijn, Liu, Jayram). Its equations have no numbers: they are counted here."""

from __future__ import annotations

from evenhand.manual.papers.item import Paper, code, command, example, figure, items, key, manual, method, result

WITHOUT_REWARD = Paper(
    "without_reward",
    "RL Fine-Tuning of Large Language Models",
    "de Bruijn, Liu and Jayram: DPO, ORPO, TOPR, KTO and RLOO on given pairs, from a 0.5B model. Equations are counted in the "
    "order of the text, since it numbers none.",
    items(
        {
            "Equation 1 of the text": ("the data: prompts with a preferred and a rejected answer", (manual("data"),)),
            "Equation 2 of the text": (
                "expected reward less a KL to the reference",
                (manual("kl"), key("rloo: kl"), command("theory")),
            ),
            "Equation 3 of the text": (
                "TOPR's gradient: good answers in full, bad ones by their truncated ratio",
                (method("topr"), method("topr_online"), key("topr: low"), key("topr: high"), code("core.policy.topr")),
            ),
            "Equation 4 of the text": ("Bradley-Terry", (code("core.preference.bradley_terry"), method("reward_model"))),
            "Equation 5 of the text": ("DPO", (method("dpo"), code("core.preference.dpo"))),
            "Equation 6 of the text": ("ORPO: likelihood plus the odds ratio", (method("orpo"),)),
            "Equation 7 of the text": (
                "the odds-ratio term and its weight",
                (method("orpo_odds"), key("orpo: weight"), code("core.preference.orpo")),
            ),
            "Equation 8 of the text": ("the odds of an answer", (code("core.preference.log_odds"),)),
            "Equation 9 of the text": (
                "cross-entropy over the vocabulary, which is `-logp` of the token that came",
                (method("sft"), code("core.logprob.completion_logp")),
            ),
            "Equation 10 of the text": ("ORPO's gradient as a product of two factors", (code("core.preference.orpo"),)),
            "Equation 11 of the text": (
                "the factor that fades as the chosen answer's odds grow",
                (code("core.preference.orpo"),),
            ),
            "Equation 12 of the text": ("the factor that contrasts the two gradients", (code("core.preference.log_odds"),)),
            "Equation 13 of the text": (
                "KTO with its reference point z0",
                (method("kto"), code("core.kto.kto"), code("core.kto.z0")),
            ),
            "Table 1": (
                "iterations per second of every method",
                (figure("phases"), code("report.budget.steps_per_second"), manual("benchmarks")),
            ),
            "Table 2": (
                "win rates against base and SFT, leaderboard scores and training time of ten models",
                (example("without_a_reward/small.yaml"), result("without_a_reward"), example("without_a_reward/full.yaml")),
                "the two leaderboards were a course's own; a leaderboard over folders of answers is `evenhand judge`",
            ),
            "Table 3": (
                "length in training by length in inference, for DPO and ORPO",
                (
                    key("evaluation.length_grid"),
                    key("arms.NAME.lengths"),
                    figure("length_grid"),
                    example("without_a_reward/small.yaml"),
                    result("without_a_reward"),
                ),
            ),
            "Table 4": ("where the checkpoints were published", (command("export"), manual("export"))),
            "Figure 1": (
                "log-probs of chosen and rejected answers while SFT runs",
                (figure("chosen_logp"), figure("rejected_logp")),
                "recorded of losses on pairs, not while SFT runs",
            ),
            "Figure 2": ("a sketch of RLHF and of DPO", (manual("methods"), manual("design"))),
            "Figure 3": ("training and validation loss of SFT, DPO and RLOO", (figure("loss"), figure("heldout/loss"))),
            "Figure 4": ("the same of TOPR, ORPO and KTO", (figure("loss"), figure("heldout/loss"))),
            "Figure 5": (
                "final evaluation losses side by side",
                (figure("heldout/loss"),),
                "losses of different methods are on different scales, and the figure had a factor "
                "of 15 by mistake: the report draws every shape by itself",
            ),
            "Figure 6": ("training loss of DPO and ORPO over four epochs", (figure("loss"), key("train.epochs"))),
            "Figure 7": ("their validation loss", (figure("heldout/loss"), key("train.evaluate_every"))),
        }
    ),
)
