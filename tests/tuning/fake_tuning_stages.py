"""Stages that take no time: how good a trained arm is follows from its settings by a formula that the tests know.

An arm wins on `round(100 quality)` of 100 prompts, quality = exp(-(log10(learning rate / 1e-4))^2) - |beta - 0.1|.
"""

from __future__ import annotations

import json
import math

from evenhand.errors import UserError

CALLS: list[str] = []
"""What was run, in order."""
FAILS_ABOVE = 5e-4
"""Learning rates above this diverge."""


def quality(settings):
    rate, beta = settings["learning_rate"], settings.get("beta", 0.1)
    return max(0.0, math.exp(-(math.log10(rate / 1e-4) ** 2)) - abs(beta - 0.1))


def nothing(spec, context):
    (context.out / "apart.json").write_text(json.dumps({"prompts": 100, "name": "validation"}))


def fit(spec, context):
    out, rate = context.out, spec.train.learning_rate
    CALLS.append(f"{spec.method} {rate:g} seed {context.seed}")
    if spec.method != "sft" and rate > FAILS_ABOVE:
        raise UserError("the loss is not finite", why=f"it is in {out}", fix="a lower rate")
    good = quality({"learning_rate": rate, **spec.parameters}) if spec.method != "sft" else 0.5
    (out / "good.json").write_text(json.dumps(good))
    counts = {"tokens_generated": 0, "tokens_trained": spec.train.steps, "reward_calls": 0, "flops": 1.0}
    (out / "ledger.json").write_text(json.dumps(counts))


def generate(spec, context):
    assert spec.split == "validation_prompts"
    assert spec.prompts == 100
    (context.out / "good.json").write_text((context.inputs["policy"] / "good.json").read_text())


def judge(spec, context):
    good = json.loads((context.inputs["answers"] / "good.json").read_text())
    wins = round(100 * good)
    outcome = [1.0] * wins + [0.0] * (100 - wins)
    (context.out / "verdicts.json").write_text(json.dumps({"outcome": outcome, "gold": [10 * good] * 99 + [10 * good + 1]}))


STAGES = {
    "data": nothing, "validation_split": nothing, "tokens": nothing, "reference": nothing,
    "fit": fit, "generate": generate, "judge": judge, "judge_self_test": nothing,
}  # fmt: skip
