"""Instruction Following, Learning from Preferences: a lecture (CSE 5525, Ohio State). Its slides have titles and no numbers."""

from __future__ import annotations

from evenhand.manual.papers.item import Paper, code, command, example, figure, items, key, manual, method, result

COURSE = Paper(
    "course",
    "Instruction Following, Learning from Preferences",
    "A lecture of the course CSE 5525 (Ohio State, 2026). Its slides are named by their titles.",
    items(
        {
            "Teacher forcing (equation)": (
                "the mean negative log-likelihood of an answer's tokens",
                (method("sft"), code("core.logprob.completion_logp"), code("core.reduce.token_mean")),
            ),
            "One task, several templates (example)": (
                "one labelled row as instructions in many words, with a list of options",
                (
                    command("data phrase"),
                    code("synthesis.tasks.phrased"),
                    example("course/small_wordings.yaml"),
                    result("course_wordings"),
                ),
            ),
            "The T0 recipe (chart)": (
                "unseen tasks after training on others",
                (code("synthesis.tasks.split_by_task"), key("evaluations.NAME.prompts")),
                "not run: the built-in worlds are one task each",
            ),
            "The Flan recipe (example)": ("instructions with and without worked examples", (command("data phrase"),)),
            "The Flan recipe (chart)": (
                "held-out tasks by number of training tasks and size",
                (),
                "needs a pretrained model of billions and 1,836 tasks",
            ),
            "Llama 2's demonstrations (Table 5)": (
                "written prompts and answers, helpful and safe",
                (manual("data"), key("data.demonstrations")),
            ),
            "Human annotation (ChatGPT's first step)": ("people write demonstrations", (command("label"), manual("labelling"))),
            "OpenAssistant (chart)": ("conversations that volunteers wrote", (manual("data"),)),
            "ShareGPT and WildChat (maps)": ("what people ask, as a map", (command("data explore"), key("data.SPLIT.recipe"))),
            "Self-instruct (pipeline)": (
                "a model continues lists of tasks",
                (command("data invent"), code("synthesis.instructions.invent")),
            ),
            "What people use it for (charts)": ("topics and kinds of requests", (command("data explore"),)),
            "LIMA (data table)": (
                "a thousand chosen demonstrations",
                (key("data.sizes"), key("splits.NAME.count")),
                "the data set itself is not here",
            ),
            "LIMA (Figure 2)": (
                "few good demonstrations against many",
                (
                    example("course/small_demonstrations.yaml"),
                    result("course_demonstrations"),
                    key("splits.NAME.options"),
                    key("arms.NAME.data"),
                ),
            ),
            "Thinking SFT (format)": (
                "reasoning and answer in tags",
                (
                    example("course/small_thinking.yaml"),
                    result("course_thinking"),
                    code("rewards.verifiable.thinking"),
                    key("data.options"),
                ),
            ),
            "A thinking data set (table)": (
                "sources of two million rows",
                (key("data.SPLIT.mix"), manual("data")),
                "the data are not here",
            ),
            "Limits of instruction tuning": ("what no likelihood says about an answer", (result("quickstart"), method("start"))),
            "Learning to summarize (Figure 1)": (
                "feedback against supervision, by size",
                (result("quickstart"), result("happier_stories")),
                "by size: not run",
            ),
            "Score an answer from 1 to 10": ("grades", (command("judge"), key("rewards.NAME.judge"))),
            "Which of two is better?": ("pairs, by people", (command("label"), manual("labelling"))),
            "Rankings": (
                "an order of several answers and the pairs in it",
                (command("data pairs"), code("core.selection.all_pairs")),
            ),
            "The RLHF pipeline (diagram)": (
                "demonstrations, reward model, policy",
                (example("happier_stories.yaml"), manual("first_model")),
            ),
            "Reward function": ("a transformer with one number at the end", (method("reward_model"), manual("reward_models"))),
            "Bradley-Terry (equation)": (
                "the chance of a preference, as a sigmoid and as a softmax",
                (code("core.preference.bradley_terry"), code("worlds.labels.Annotator")),
            ),
            "Reward model loss (equation)": (
                "its negative log-likelihood",
                (method("reward_model"), code("core.preference.bradley_terry")),
            ),
            "Reward model accuracy (Table 2)": (
                "accuracy of eight models on four data sets",
                (manual("reward_models"), command("judge")),
                "the models are not here; a card says the same of yours",
            ),
            "One epoch, 65 to 75 %": (
                "why it is trained once, and how often people agree",
                (result("all_roads"), manual("reward_models")),
            ),
            "Verifiable rewards": (
                "programs as rewards: numbers, code, instructions",
                (example("countdown.yaml"), result("countdown"), code("rewards.constraints.ifeval")),
            ),
            "Goal of RL (equation)": (
                "the expected reward of the policy's own answers",
                (method("reinforce"), command("theory")),
            ),
            "Expected return (equation)": ("the sum over trajectories", (code("theory.enumeration.expected"),)),
            "Policy gradient (equation)": (
                "reward times the gradient of the log-prob",
                (method("reinforce"), code("core.policy.reinforce")),
            ),
            "REINFORCE update (equation)": (
                "the same as a step over m samples",
                (method("reinforce"), code("core.policy.reinforce")),
            ),
            "Regularized policy (equation)": ("expected reward less a KL", (manual("kl"), key("rloo: kl"), result("theory"))),
            "PPO": (
                "clipped updates with a value function",
                (method("ppo"), code("core.policy.clipped"), code("core.credit.gae")),
            ),
            "GRPO": ("groups in place of a value function", (method("grpo"), code("core.credit.standardise"))),
            "RLHF against fine-tuning (chart)": (
                "preferred over supervision, by size",
                (result("quickstart"),),
                "by size: not run",
            ),
            "DPO (diagram)": ("without a reward model", (method("dpo"), manual("design"))),
            "DPO loss (equation)": ("the pair's log-ratio through a sigmoid", (method("dpo"), code("core.preference.dpo"))),
            "DPO gradient (equation)": (
                "the weight is how wrong the implicit reward is",
                (code("core.preference.dpo"), figure("margin")),
            ),
            "DPO performance (chart)": ("DPO beside PPO", (result("every_method"),)),
            "DPO scales (table)": (
                "Tulu 2 at three sizes on seven tasks",
                (key("evaluations.NAME.task"),),
                "needs models of 7B to 70B",
            ),
            "Online and offline": ("who samples", (result("every_method"), result("all_roads"))),
            "On-policy and off-policy": (
                "whose samples",
                (method("topr_online"), key("rloo: updates"), code("core.corrections.off_policy")),
            ),
            "Reward hacking (example)": (
                "the same answer, four times as long",
                (key("data.annotator"), key("iterative_dpo: length_penalty"), manual("statistics"), result("course_length_bias")),
            ),
            "False certainty (chart)": (
                "calibration before and after",
                (code("stats.reward_model.calibration"),),
                "of a policy's own certainty nothing is measured; the card measures a reward model's",
            ),
            "People's and a model's feedback": (
                "labels by a judge",
                (key("annotate.judge"), example("on_policy_pairs.yaml"), result("course_refusals")),
            ),
            "Constitutional AI (diagram)": (
                "criticism and revision by principles",
                (command("data revise"), key("revise.principles")),
            ),
            "Refusals (example)": (
                "asking for a gram and for a can: one is to be refused",
                (
                    example("course/small_refusals.yaml"),
                    result("course_refusals"),
                    code("evaluation.refusals.refusal_rates"),
                    command("evaluate"),
                ),
            ),
        }
    ),
)
