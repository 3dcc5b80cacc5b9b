"""Which model is meant: by name and seed, never by how it did."""

from __future__ import annotations

import json
import shutil

import pytest

from evenhand.errors import UserError
from evenhand.export.subject import any_seed, artifact, find_arm, find_reward_model, spec_of


def test_an_arm_of_several_seeds_needs_one_named(tiny):
    with pytest.raises(UserError, match="trained under 2 seeds") as refused:
        find_arm(tiny, "dpo")
    assert "0, 1" in refused.value.fix
    assert "must not depend on how it did" in refused.value.why
    with pytest.raises(UserError, match="dpo has no seed 7"):
        find_arm(tiny, "dpo", 7)
    assert (arm := find_arm(tiny, "dpo", 1)).of_seed(arm.result.per_seed) == 0.32
    assert any_seed(tiny, "dpo").seed == 0


def test_an_only_seed_needs_no_name(own_run):
    shutil.rmtree(own_run / "arms" / "dpo" / "seed-0")
    assert find_arm(own_run, "dpo").seed == 1


def test_one_artifact_under_several_seeds_is_one_model(tiny):
    found = find_arm(tiny, "sft")
    assert found.seed is None
    assert found.spec["method"] == "sft", "how it was made is told by the node that its answers came from"


def test_arms_that_are_no_model_of_the_run(own_run):
    with pytest.raises(UserError, match="best of n samples"):
        find_arm(own_run, "best")
    place = own_run / "arms" / "sft" / "seed-0"
    shutil.rmtree(place / "model")
    (place / "model").symlink_to(own_run)
    with pytest.raises(UserError, match="the base model as it came"):
        find_arm(own_run, "sft", 0)
    with pytest.raises(UserError, match="no arm is called 'dop'") as unknown:
        find_arm(own_run, "dop")
    assert "dpo" in unknown.value.fix


def test_reward_models_without_a_score(own_run):
    place = own_run / "reward_models" / "rm"
    for kind in ("attributes", "gated", "general_preference", "process"):
        (place / "reward.json").write_text(json.dumps({"kind": kind}))
        assert find_reward_model(own_run, "rm").is_reward_model, "a classifier, of one label or several"
    (place / "reward.json").write_text(json.dumps({"kind": "policy", "beta": 0.1}))
    with pytest.raises(UserError, match="no score head"):
        find_reward_model(own_run, "rm")
    shutil.rmtree(place / "model")
    with pytest.raises(UserError, match="not trained here"):
        find_reward_model(own_run, "rm")
    with pytest.raises(UserError, match="no reward model is called 'x'"):
        find_reward_model(own_run, "x")


def test_a_store_that_is_gone_gives_nothing(own_run):
    run = find_arm(own_run, "dpo", 0).run
    assert spec_of(run, "base") == {"model": {"path": "org/base", "revision": None, "fingerprint": None}}
    shutil.rmtree(own_run / "store")
    assert artifact(run, "base") is None
    assert spec_of(run, "base") == {}


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match=r"has no results\.json"):
        find_arm(tmp_path, "dpo")
