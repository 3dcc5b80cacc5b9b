"""RLHF Workflow: From Reward Modeling to Online RLHF (Dong et al. 2024)."""

from __future__ import annotations

from evenhand.manual.papers.item import Paper, code, command, example, figure, items, key, manual, method, result

_RUN = (example("rlhf_workflow/small.yaml"), result("rlhf_workflow"))

RLHF_WORKFLOW = Paper(
    "rlhf_workflow",
    "RLHF Workflow: From Reward Modeling to Online RLHF",
    "Dong et al. 2024 (arXiv:2405.07863): reward and preference models from public data, then rounds of sampling and DPO on an "
    "8B model.",
    items(
        {
            "Definition 1": (
                "the preference oracle: a draw with the chance that one answer is preferred",
                (code("worlds.labels.Annotator"), key("annotate.labels"), manual("labelling")),
            ),
            "Definition 2": (
                "Bradley-Terry preferences of a true reward",
                (code("worlds.labels.Annotator"), code("core.preference.bradley_terry")),
            ),
            "Equation 1": ("Bradley-Terry", (code("core.preference.bradley_terry"),)),
            "Equation 2": ("the true reward less a KL to the start", (manual("kl"), command("theory"), result("theory"))),
            "Equation 3": (
                "its optimum, the start tilted by the reward",
                (code("theory.likelihood.lemma_2_1_backward_induction"), result("theory")),
            ),
            "Equation 4": ("the likelihood of a reward model", (method("reward_model"), code("theory.likelihood.reward_mle"))),
            "Equation 5": ("DPO", (method("dpo"), code("core.preference.dpo"))),
            "Equation 6": (
                "offline data: pairs of fixed policies, labelled once",
                (method("dpo"), key("data.preferences"), key("annotate.choose")),
            ),
            "Equation 7": (
                "the main agent: the KL-regularised best policy under the fitted reward",
                (method("iterative_dpo"), code("theory.exploration.main_policy"), result("theory")),
            ),
            "Equation 8": (
                "the enhancer's set: as far from the main agent as the information there is worth",
                (code("theory.exploration.enhancer"), key("iterative_dpo: partner"), result("theory")),
            ),
            "Equation 9": ("the reward less a penalty per character", (key("iterative_dpo: length_penalty"), *_RUN)),
            "Algorithm 1": (
                "rounds of a main agent and an enhancer, in theory",
                (code("theory.exploration.rounds"), result("theory")),
                "exact only in the linear case; for language models it is algorithm 2",
            ),
            "Algorithm 2": (
                "rounds of DPO on the best against the worst of n answers at two temperatures",
                (
                    method("iterative_dpo"),
                    key("iterative_dpo: temperatures"),
                    key("iterative_dpo: initialise"),
                    key("train.keep_checkpoint"),
                    *_RUN,
                ),
            ),
            "Theorem 1": (
                "after as many rounds as the problem has dimensions, a policy close to the best",
                (code("theory.exploration.rounds"), result("theory")),
                "the page shows the gap closing in one linear problem; the rate itself is not checked",
            ),
            "Remark 1": ("benchmarks can be hacked: look at answers", (result("real_instruct"), manual("reading_a_report"))),
            "Table 1": (
                "accuracy of prompting, two Bradley-Terry models and a preference model by kind of pair",
                (method("preference_model"), command("judge"), code("stats.reward_bench.reward_bench"), *_RUN),
                "the four kinds of RewardBench need its data, which `evenhand judge` reads",
            ),
            "Table 2": (
                "chat benchmarks of the models beside others",
                (manual("evaluation"), code("evaluation.alpaca_eval.leaderboard_row"), command("judge")),
                "needs models of 7B and more, and GPT-4 as judge",
            ),
            "Table 3": (
                "academic tasks: what alignment cost",
                (key("evaluations.NAME.task"),),
                "needs a model that can do them; lm-evaluation-harness runs in any experiment",
            ),
            "Table 4": ("other reward models and a length penalty", _RUN),
            "Table 5": (
                "prompts, lengths and pairs of ten public data sets",
                (command("data describe"), manual("data")),
                "the data sets themselves are not here",
            ),
            "Table 6": ("benchmarks, metrics and numbers of examples", (manual("evaluation"), key("evaluations.NAME.shots"))),
            "Table 7": ("settings of DPO's training", (example("rlhf_workflow/full.yaml"),)),
            "Figure 1": ("a sketch of reward modelling and of the rounds", (manual("design"), method("iterative_dpo"))),
            "Figure 2": (
                "a sketch of a reward model and of a preference model",
                (method("reward_model"), method("preference_model")),
            ),
            "Figure 3": (
                "heat map: how reward follows length among the answers to one prompt",
                (code("stats.reward_model.length_heatmap"), key("evaluation.best_of_n"), *_RUN),
            ),
            "Figure 4": ("a sketch of the rounds", (method("iterative_dpo"),)),
            "Figure 5": ("a map of the prompts by source and topic", (command("data explore"),)),
            "Figure 6": (
                "loss, gradient norm and rate of the preference model's training",
                (figure("loss"), figure("grad_norm"), figure("lr")),
            ),
            "Figure 7": ("the same of the reward model", (figure("loss"), figure("grad_norm"), figure("lr"))),
            "Figure 8": ("the model after each round", (key("train.snapshots"), *_RUN)),
            "Figure 9": (
                "all benchmarks of the models beside an instruct model",
                (),
                "needs the benchmarks of tables 2 and 3 on 8B models",
            ),
            "Figure 10": ("answers before and after, first example", (result("quickstart"), command("generate"))),
            "Figure 11": ("answers before and after, second example", (result("quickstart"), command("generate"))),
            "Figure 12": ("answers before and after, third example", (result("quickstart"), command("generate"))),
        }
    ),
)
