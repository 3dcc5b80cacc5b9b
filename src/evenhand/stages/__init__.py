"""The stages by kind. Light to import: a stage's module is loaded when its spec is made or when it runs."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from evenhand.models import checked

SPECS: Mapping[str, str] = {
    "data": "DataSpec",
    "validation_split": "ValidationSplitSpec",
    "further_split": "FurtherSplitSpec",
    "questions": "QuestionsSpec",
    "base": "BaseSpec",
    "tokens": "TokensSpec",
    "pretrained_reward_model": "PretrainedRewardModelSpec",
    "fit": "FitSpec",
    "reference": "ReferenceSpec",
    "annotate": "AnnotateSpec",
    "revise": "ReviseSpec",
    "generate": "GenerateSpec",
    "judge": "JudgeSpec",
    "judge_self_test": "JudgeSelfTestSpec",
    "evaluate_reward_model": "EvaluateRewardModelSpec",
    "sample_rewards": "SampleRewardsSpec",
    "score_answers": "ScoreAnswersSpec",
    "frontier": "FrontierSpec",
    "harness": "HarnessSpec",
}
"""Kind, which is the module's name -> its spec's name."""


def spec_class(kind: str) -> type[Any]:
    """The dataclass that says what a stage of this kind does."""
    return getattr(importlib.import_module(f"evenhand.stages.{kind}"), SPECS[kind])


def _run(kind: str, spec: Any, context: Any) -> None:
    with checked.remembered():
        importlib.import_module(f"evenhand.stages.{kind}").run(spec, context)


STAGES = {kind: partial(_run, kind) for kind in SPECS}
