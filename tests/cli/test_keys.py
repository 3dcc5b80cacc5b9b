"""`evenhand keys`, and the completion of shells."""

from __future__ import annotations

import itertools
import json

from typer.testing import CliRunner

from evenhand.cli import app
from evenhand.cli.info import complete_key
from evenhand.cli.options import complete_experiment


def said(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["keys", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_one_key_is_said_in_full():
    assert said("lengths.prompt").splitlines() == [
        "lengths.prompt: an integer, in tokens; default 512", "  Longest prompt; a longer one keeps its end.",
    ]  # fmt: skip


def test_mappings_list_their_keys_and_all_methods_are_named():
    assert said("sampling").splitlines()[0] == "sampling"
    assert "  temperature  Divides the logits; 0 is greedy. [1]" in said("sampling")
    arms = said("arms")
    assert "  reward " in arms
    assert "and those of its method or kind: sft, " in arms
    assert "  arms " in said()


def test_the_keys_of_one_method_are_asked_for_by_its_name():
    assert said("cdpo").splitlines()[0] == "arms.NAME (method: cdpo)"
    assert said("arms.dpo.beta").splitlines()[0].startswith("arms.NAME.beta (method: dpo)")
    arm = said("arms.dpo").splitlines()
    assert "arms.NAME (method: dpo)" in arm
    assert any(line.startswith("  initial_policy ") for line in arm), "what all arms have is said too"
    assert not [line for line in arm if "method: grpo" in line or "and those of its" in line]


def test_the_schema_is_json():
    assert json.loads(said("--json-schema"))["title"] == "evenhand experiment"


def test_shells_complete_experiments_and_keys():
    assert "--install-completion" in CliRunner().invoke(app, ["--help"]).output
    assert complete_experiment("quick") == ["quickstart"]
    assert "train.warmup" in complete_key("train.wa")
    assert complete_key("warm") == ["warmup"]


def test_methods_that_say_the_same_of_a_key_stand_together():
    lines = said("num_generations").splitlines()
    assert len(lines) == 2 * len({line for line in lines if line.startswith("  ")}), "each thing is said once"
    (eight,) = [line for line, below in itertools.pairwise(lines) if below.endswith("prompt. [8]")]
    assert eight.startswith("arms.NAME (method: rloo, ")
    assert ", grpo, " in eight
