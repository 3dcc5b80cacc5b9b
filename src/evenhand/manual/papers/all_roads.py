"""All Roads Lead to Likelihood: The Value of Reinforcement Learning in Fine-Tuning (arXiv:2503.01067)."""

from __future__ import annotations

from evenhand.manual.papers.item import Paper, code, command, example, figure, items, key, manual, method, result

_RUN = (example("all_roads/small.yaml"), result("all_roads"))
_THEORY = (command("theory"), result("theory"))

ALL_ROADS = Paper(
    "all_roads",
    "All Roads Lead to Likelihood: The Value of Reinforcement Learning in Fine-Tuning",
    "arXiv:2503.01067: why learning from a reward model and fresh samples beats learning from the pairs themselves.",
    items(
        {
            "Equation 1": (
                "local reward models: the policy's own log-prob as reward",
                (method("local_reward_model"), code("core.preference.local")),
            ),
            "Equation 2": ("likelihood of the data plus a KL to the start", (manual("kl"), *_THEORY)),
            "Equation 3": ("the same with entropy in place of the KL", _THEORY),
            "Equation 4": ("Bradley-Terry", (code("core.preference.bradley_terry"),)),
            "Equation 5": (
                "fitting a reward model as a projection of the data",
                (code("theory.likelihood.reward_mle"), *_THEORY),
            ),
            "Equation 6": ("the same as a log-likelihood", (method("reward_model"), code("theory.likelihood.reward_mle"))),
            "Equation 7": ("fitting a policy as a projection of the data", (code("theory.likelihood.policy_mle"), *_THEORY)),
            "Equation 8": ("the same as a log-likelihood", (method("local_reward_model"), code("theory.likelihood.policy_mle"))),
            "Equation 9": ("the same, token by token", (method("local_reward_model"), code("theory.likelihood.policy_mle"))),
            "Equation 10": ("the soft-optimal policy of a reward", (code("theory.likelihood.rlhf"), *_THEORY)),
            "Equation 11": ("its closed form over all policies", (code("theory.tree.ProbabilityTree.soft_optimal"), *_THEORY)),
            "Equation 12": ("a product of two distributions, normalised", (code("theory.likelihood.theorem_2_3_normaliser"),)),
            "Equation 13": (
                "the best policy under a reward and a KL to the reference",
                (code("theory.likelihood.rlhf"), *_THEORY),
            ),
            "Equation 14": (
                "DPO's optimum is the likelihood's times the reference. As printed it lacks the normaliser: both are measured",
                (
                    code("theory.likelihood.theorem_2_3_normaliser"),
                    code("theory.likelihood.theorem_2_3_without_normaliser"),
                    *_THEORY,
                ),
            ),
            "Equation 15": ("the same within the class", (code("theory.likelihood.theorem_2_3_normaliser"), *_THEORY)),
            "Equation 16": ("the same with the reward", (code("theory.likelihood.theorem_2_3"), *_THEORY)),
            "Equation 17": (
                "RLHF as a projection onto the policies, first line",
                (code("theory.likelihood.theorem_2_3"), *_THEORY),
            ),
            "Equation 18": ("second line", (code("theory.likelihood.theorem_2_3"),)),
            "Equation 19": ("third line", (code("theory.likelihood.theorem_2_3"),)),
            "Equation 20": ("it is DPO's optimum", (code("theory.likelihood.theorem_2_3"), *_THEORY)),
            "Equation 21": ("RLHF over simple rewards as a projection", (code("theory.likelihood.theorem_3_1"), *_THEORY)),
            "Equation 22": (
                "rewards, their soft-optimal policies and soft Q-functions are one set",
                (code("theory.soft_q.round_trip"), *_THEORY),
            ),
            "Equation 23": (
                "from a reward to its Q takes dynamic programming, from Q to the policy a softmax",
                (code("theory.soft_q.q_values"), *_THEORY),
            ),
            "Lemma 2.1": ("soft RL is a projection", (code("theory.likelihood.lemma_2_1_gradient"), *_THEORY)),
            "Theorem 2.2": ("with equal classes RLHF is maximum likelihood", (code("theory.likelihood.theorem_2_2"), *_THEORY)),
            "Theorem 2.3": ("with equal classes RLHF with a KL is DPO", (code("theory.likelihood.theorem_2_3"), *_THEORY)),
            "Theorem 3.1": (
                "RLHF is maximum likelihood over the policies of simple rewards",
                (code("theory.likelihood.theorem_3_1"), *_THEORY),
            ),
            "Lemma B.1": ("lemma 2.1 with a reference", (code("theory.likelihood.lemma_2_1_backward_induction"), *_THEORY)),
            "Hypothesis 1": ("are fresh samples worth something by themselves?", _RUN),
            "Hypothesis 2": (
                "does offline learning fail to hold on to the reference?",
                (code("theory.likelihood.uncovered_answers"), figure("frontier_gold"), *_RUN),
            ),
            "Hypothesis 3": (
                "is the online problem easier to optimise? More prompts would then help (figure 7)",
                (key("arms.NAME.data"),),
                "the arm with three times the prompts was not run; `data: prompts` on `batched_online_dpo` is it",
            ),
            "Hypothesis 4": (
                "can reward models use more data than policies? (figure 8)",
                (example("on_policy_pairs.yaml"), key("annotate.choose")),
            ),
            "Hypothesis 5": ("do reward models generalise better? (figures 9 and 10)", (key("evaluation.best_of_arms"), *_RUN)),
            "Hypothesis 6": (
                "online learning searches only policies of simple rewards",
                (code("theory.likelihood.theorem_3_1"), *_RUN),
                "the built-in task may not have the gap that it speaks of: see the page",
            ),
            "Table 1": ("splits and lengths of TL;DR", (example("all_roads/full.yaml"), manual("data"))),
            "Table 2": ("settings of the reward model's training", (example("all_roads/full.yaml"),)),
            "Table 3": ("settings of DPO's training", (example("all_roads/full.yaml"), method("batched_online_dpo"))),
            "Table 4": (
                "the local reward model's beta, one over the answer's length",
                (method("local_reward_model"), example("all_roads/full.yaml")),
            ),
            "Figure 1": ("a sketch of the two roads", (manual("design"),)),
            "Figure 2": ("a sketch of the two projections", (result("theory"), command("theory"))),
            "Figure 3": ("win rates of SFT, DPO, DPO twice as long, and online DPO from both", _RUN),
            "Figure 4": (
                "best-of-n by size of the reward model and of the policy",
                (key("model.pretrain.shape"), key("evaluation.best_of_n")),
                "not run: a reward model has the shape of the policy that it starts from, so that one file cannot vary "
                "them apart",
            ),
            "Figure 5": (
                "two-word answers: no gain from going online",
                (key("data.SPLIT.recipe"), code("rewards.verifiable.two_words")),
                "not run in the small: the built-in notes have no two-word form; recipe `tldr_two_words` and reward "
                "`two_words` are for full size",
            ),
            "Figure 6": (
                "ROUGE-L as the reward: no gain from going online",
                (code("rewards.verifiable.rouge_l"),),
                "not run in the small",
            ),
            "Figure 7": ("three times the prompts", (key("arms.NAME.data"),), "not run: the key is there"),
            "Figure 8": (
                "pairs of the policy's own answers, labelled by the judge",
                (example("on_policy_pairs.yaml"),),
                "the example has DPO alone, without the online arms beside it",
            ),
            "Figure 9": ("validation likelihood of global, local and DPO reward models", _RUN),
            "Figure 10": (
                "best-of-n of the three, on answers of SFT and of DPO",
                (key("evaluation.best_of_n"), key("evaluation.best_of_arms"), figure("best_of_n")),
                "not run on the page",
            ),
        }
    ),
)
