"""The stages by kind. Light to import: a stage's module is loaded when its spec is made or when it runs."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from evenhand.models import checked

KINDS = (
    "data", "validation_split", "further_split", "questions", "base", "tokens", "pretrained_reward_model", "fit", "reference",
    "annotate", "revise", "generate", "judge", "judge_self_test", "evaluate_reward_model", "sample_rewards", "score_answers",
    "frontier", "harness",
)  # fmt: skip
"""Each is the name of its module, which has a function `run` and a spec called after it."""


def spec_class(kind: str) -> type[Any]:
    """The dataclass that says what a stage of this kind does: `JudgeSelfTestSpec` of `judge_self_test`."""
    return getattr(importlib.import_module(f"evenhand.stages.{kind}"), f"{kind.title().replace('_', '')}Spec")


def _run(kind: str, spec: Any, context: Any) -> None:
    with checked.remembered():
        importlib.import_module(f"evenhand.stages.{kind}").run(spec, context)


STAGES = {kind: partial(_run, kind) for kind in KINDS}
