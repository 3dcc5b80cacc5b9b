"""What stands in a model's folder and transformers cannot read is one message, whatever it raises."""

from __future__ import annotations

import json

import pytest
from transformers import AutoConfig, AutoTokenizer

from evenhand.errors import UserError
from evenhand.models.guarded import guarded
from tests.models.tiny_networks import FIRST

LLAMA = {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2}
UNREADABLE = [
    ({**LLAMA, "num_attention_heads": 0}, "ZeroDivisionError: "),
    ({**LLAMA, "hidden_size": "large"}, "'hidden_size' expected int, got str"),
    ({**LLAMA, "torch_dtype": "float12"}, "float12"),
    ([1], "Unrecognized model" if not FIRST else "TypeError: list indices"),
    ({}, "model_type"),
]


@pytest.mark.parametrize(("config", "says"), UNREADABLE)
def test_a_config_of_wrong_values_is_said(tmp_path, config, says):
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError) as told:
        guarded(AutoConfig.from_pretrained, tmp_path)
    assert says in told.value.what
    assert "\n" not in told.value.what
    assert told.value.where == str(tmp_path)


def test_a_line_that_only_announces_others_is_said_with_them(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    with pytest.raises(UserError, match=r"one of: \(1\)"):
        guarded(AutoTokenizer.from_pretrained, tmp_path)
