"""What rewards measure and what their keys mean."""

from __future__ import annotations

from collections.abc import Mapping

REWARDS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "gold": ("A built-in world's own ground truth.", {"world": "The world.", "options": "Its task's options."}),
    "model": ("A reward model of `reward_models`.", {
        "name": "Its name there.",
        "rule": "How a preference model scores a group: borda or knock_out; how a process reward model joins its steps: min, "
                "product, last, mean or differences.",
    }),
    "vader": ("Sentiment of the answer by VADER, from -1 to 1.", {}),
    "number": ("1 where the last number of the answer is the right one.", {
        "field": "The column that holds the right one.", "tolerance": "How far off still counts.",
    }),
    "math": ("1 where the final mathematical answer equals the right one.", {"field": "The column that holds the right one."}),
    "format": ("1 where the whole answer matches a pattern.", {"pattern": "A regular expression."}),
    "thinking": ("1 where the answer is one <reasoning> and one <answer>.", {}),
    "tagged": ("Another reward of what stands inside a tag.", {
        "reward": "The other reward.", "tag": "The tag's name.", "missing": "The reward of an answer without that one tag.",
    }),
    "two_words": ("Share of a two-word answer that is in the reference.", {"field": "The column that holds the reference."}),
    "rouge_l": ("ROUGE-L with a reference.", {"field": "The column that holds the reference."}),
    "countdown": ("1 where an expression uses the numbers and reaches the target.", {
        "reasoning": "Whether the answer stands inside <answer>.",
    }),
    "arithmetic": ("1 where the result is right.", {"reasoning": "Whether the answer stands inside <answer>."}),
    "environment": ("What the environment of an answer gave for its turns: docs/environments.md.", {}),
    "ifeval": ("Share of the verifiable instructions that are followed.", {}),
    "code": ("Share of unit tests that a program passes; runs what a model wrote.", {
        "run_untrusted_code": "Must be true: this machine will run what a model wrote.",
        "field": "The column that holds the tests.",
        "seconds": "Time limit of a program. In seconds.", "memory": "Memory limit of a program. In megabytes.",
        "isolation": "auto, or none without namespaces (docs/security.md).",
    }),
    "function": ("A Python function of yours: docs/extending.md.", {
        "path": "FILE.py:NAME (relative to the file it stands in) or module:NAME (installed, or beside that file).",
        "sees": "What it is called with: completion (one answer) or group (all of a prompt).",
        "seconds": "Time limit for the answers to one prompt. In seconds.",
    }),
    "endpoint": ("A server of yours: docs/own_reward.md says what it is sent and answers.", {
        "url": "Its address, to which every question is sent.",
        "columns": "Columns of the data that it sees besides prompt and answers.",
        "key_env": "The environment variable that holds its key; without one none is sent.",
        "timeout": "Until a request counts as lost. In seconds.", "attempts": "How often a busy server is asked.",
        "concurrency": "Requests under way at a time.",
    }),
    "length": ("Length of the answer, from `over` on.", {"unit": "chars, words or tokens.", "over": "What costs nothing."}),
    "overlong": ("DAPO's soft penalty from 0 to -1 before the limit.", {
        "limit": "Where it is -1.", "buffer": "How long before that it begins.", "unit": "chars, words or tokens.",
    }),
    "unfinished": ("Another reward, with a rule for answers that the limit cut.", {
        "reward": "The other reward.", "rule": "none, replace or subtract.", "value": "What replaces it, or is subtracted.",
    }),
    "clip": ("Another reward, held between two values.", {
        "reward": "The other reward.", "low": "The least.", "high": "The most.",
    }),
    "affine": ("(reward - shift) / scale of another reward.", {
        "reward": "The other reward.", "shift": "What is taken off.", "scale": "What it is divided by.",
    }),
    "weighted": ("A weighted sum.", {"parts": "A list of {reward, weight, name}."}),
    "ensemble": ("Several rewards as one.", {
        "members": "The rewards.",
        "rule": "mean, min, lower_bound (the mean less k standard deviations) or uncertainty (the mean less k variances).",
        "k": "How many of them.",
    }),
    "rubric": ("The weighted share of criteria that an answer meets.", {
        "criteria": "A list of {reward, weight, least, name}: met where the reward is at least `least`, by default 1; or of "
                    "{ask, weight, least, name}: met where the judging model says so.",
        "judge": "The judging model that is asked: the keys of `judge` for llm or local; `verdict: logprobs` reads P(yes).",
    }),
    "judge": ("A language model's grade of each answer, or a tournament of the answers to a prompt.", {
        "judge": "The judging model: the keys of `judge` for llm or local. Its template grades an answer or compares two.",
        "rule": "How comparisons of two become a score: borda or knock_out.",
    }),
}  # fmt: skip
