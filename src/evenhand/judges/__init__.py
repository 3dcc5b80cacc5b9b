"""Judges: two answers in, a verdict out. Programs, reward models, and language models here or behind an endpoint."""

from evenhand.judges.agreement import account
from evenhand.judges.config import LLM, LocalLLM, OwnJudge, PreferenceModel, Settings, build
from evenhand.judges.llm import LLMJudge
from evenhand.judges.registry import JUDGES, JudgeContext, judge
from evenhand.judges.reward import RewardJudge
from evenhand.judges.selftest import self_test
from evenhand.judges.verdict import Comparison, Judge, Order, Status, Verdict, paired

__all__ = [
    "JUDGES", "LLM", "Comparison", "Judge", "JudgeContext", "LLMJudge", "LocalLLM", "Order", "OwnJudge", "PreferenceModel",
    "RewardJudge", "Settings", "Status", "Verdict", "account", "build", "judge", "paired", "self_test",
]  # fmt: skip
