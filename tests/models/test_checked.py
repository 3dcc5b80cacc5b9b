"""A stage checks each kind of model once."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from evenhand import stages
from evenhand.models import checked
from tests.models.tiny_networks import network


class Checked:
    """A check that notes whom it saw."""

    def __init__(self, says: str | None = None) -> None:
        self.seen: list[object] = []
        self.says = says

    def __call__(self, hf: object, *more: object) -> str | None:
        self.seen.append(hf)
        return self.says


def test_models_of_one_kind_are_checked_once_in_a_stage_and_always_outside():
    check, first, second = Checked(), network("llama"), network("llama")
    with checked.remembered():
        assert [checked.problem(check, hf) for hf in (first, second, first)] == [None] * 3
    assert check.seen == [first]
    for hf in (first, second):
        checked.problem(check, hf)
    assert check.seen == [first, first, second]


def test_another_config_precision_attention_or_check_is_another_kind():
    one, other = Checked(), Checked()
    models = [network("llama"), network("llama", rope_theta=5000.0), network("llama").to(torch.bfloat16), network("qwen2")]
    switched = network("llama")
    switched.set_attn_implementation("sdpa")
    with checked.remembered():
        for hf in [*models, switched] * 2:
            checked.problem(one, hf)
        checked.problem(other, models[0])
    assert one.seen == [*models, switched]
    assert other.seen == [models[0]]


def test_what_failed_is_looked_at_again():
    check, hf = Checked("it is not causal"), network("llama")
    with checked.remembered():
        assert [checked.problem(check, hf) for _ in range(2)] == ["it is not causal"] * 2
    assert len(check.seen) == 2


def test_every_stage_begins_without_memory(monkeypatch: pytest.MonkeyPatch):
    check, hf = Checked(), network("llama")
    module = ModuleType("evenhand.stages.made_up")
    module.run = lambda spec, context: [checked.problem(check, hf) for _ in range(spec)]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for _ in range(2):
        stages._run("made_up", 3, None)
    assert check.seen == [hf, hf]
