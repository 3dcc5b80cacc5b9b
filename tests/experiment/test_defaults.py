"""Defaults that fit: where arms start, how long texts may be, a reward model alone, pairs that only the judge has seen."""

from __future__ import annotations

import json
import logging

import pytest

from evenhand.data.config import DataConfig
from evenhand.errors import UserError
from evenhand.plan.plan import build
from evenhand.report.text import headline
from evenhand.run_experiment import execute, prepare
from evenhand.spec.read import read_experiment
from evenhand.stages.data import from_sources
from tests.report.given import summarise

TINY = {
    "name": "tiny",
    "data": {"world": "quickstart", "sizes": {"preferences": 60, "heldout_preferences": 40, "prompts": 8, "heldout_prompts": 4}},
    "model": {"pretrain": {"documents": 8, "train": {"steps": 1}}},
    "runtime": {"device": "cpu"},
}
ARMS = {"arms": {"base": {"method": "start"}, "dpo": {"method": "dpo", "train": {"steps": 1}}}}


def test_arms_start_from_sft_where_there_is_one():
    assert read_experiment({**TINY, **ARMS}).value.initial_policy == "base"
    with_sft = read_experiment({**TINY, **ARMS, "sft": {"train": {"steps": 1}}}).value
    assert (with_sft.initial_policy, with_sft.arm("dpo").initial_policy) == ("sft", "sft")
    with pytest.raises(UserError, match="there is no `sft:` section"):
        read_experiment({**TINY, **ARMS, "initial_policy": "sft"})


def test_a_start_that_is_named_and_one_that_follows_are_one_stage():
    sft = {"sft": {"train": {"steps": 1}}}
    one, other = (build(read_experiment({**TINY, **ARMS, **sft, **more}).value) for more in ({}, {"initial_policy": "sft"}))
    assert [n.key for n in one.nodes] == [n.key for n in other.nodes]


@pytest.mark.parametrize(
    ("lengths", "found", "said"),
    [
        ({}, (128, 128), "128 of prompt and 128 of completion, which is what the model's context of 256 tokens holds"),
        ({"prompt": 100, "completion": 100}, (100, 100), ""),
        ({"prompt": 200, "completion": 100}, (200, 100), "prompts of more than 156 will not fit (name smaller ones)"),
        ({"completion": 100}, (512, 100), "prompts of more than 156 will not fit (name both)"),
    ],
)
def test_lengths_follow_the_models_context_unless_they_are_named(lengths, found, said, caplog, tmp_path):
    with caplog.at_level(logging.WARNING):
        run = prepare({**TINY, **ARMS, **({"lengths": lengths} if lengths else {})}, out=tmp_path)
    own = run.loaded.value.lengths
    assert (own.prompt, own.completion) == found
    assert run.loaded.effective["lengths"] == {"prompt": found[0], "completion": found[1]}
    messages = [r.getMessage() for r in caplog.records]
    assert len(messages) == bool(said)
    assert all(said in m for m in messages)


def test_the_context_of_a_folder_is_read_from_its_config(tmp_path):
    from evenhand.spec.lengths import context

    for config, window in (({"max_position_embeddings": 900}, 900), ({"n_positions": 64}, 64), ({}, None),
                           ([1], None),
                           ({"text_config": None, "n_positions": 64}, 64),
                           ({"text_config": {"max_position_embeddings": 70}, "max_position_embeddings": 9}, 70)):  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(config))
        made = read_experiment({**TINY, **ARMS, "model": {"path": str(tmp_path)}}).value
        assert context(made) == window
    (tmp_path / "config.json").write_text('{"n_positions": ')
    assert context(made) is None, "what is no JSON is said where the model is opened"


def test_reward_models_alone_are_a_run_with_their_accuracy_as_headline(tmp_path):
    train = {"train": {"steps": 1}}
    alone = {**TINY, "lengths": {"prompt": 64, "completion": 48}, "reward_models": {"rm": train}}
    outcome, results = execute(prepare(alone, out=tmp_path / "run"), workers=0)
    assert outcome.ok
    assert results is not None
    assert results.judge is None
    assert results.baseline is None
    assert results.reward_models["rm"].n == 40
    from evenhand.report import write

    page = write(tmp_path / "run").read_text()
    assert "of held-out pairs as their labels do" in page
    assert 'id="verdict"' not in page


def test_the_headline_of_reward_models():
    models = {
        "a": {"accuracy": 0.71, "ci95": [0.6, 0.8], "n": 90, "label_ceiling": 0.8},
        "b": {"accuracy": 0.64, "ci95": [0.5, 0.7]},
    }
    found = headline(summarise({"arms": {}, "reward_models": models}))
    assert found.title == "a ranks 71% of held-out pairs as their labels do"
    assert found.sentences[0].startswith(
        "a: 71.0%, 95% interval 60.0 to 80.0% over 90 pairs; 50% would be guessing; 80.0% is the"
    )


def test_nothing_at_all_is_still_refused():
    with pytest.raises(UserError, match="at least one arm"):
        read_experiment(TINY)


def test_pairs_for_the_judge_are_pairs_that_no_arm_has(tmp_path):
    rows = [{"prompt": f"p{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(200)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    plain, _ = from_sources(DataConfig(preferences=str(path)), 0)
    splits, _ = from_sources(DataConfig(preferences=str(path), judge_share=0.4), 0)
    ids = {name: {g.prompt.id for g in groups} for name, groups in splits.items()}
    assert "judge_preferences" not in plain
    assert ids["heldout_preferences"] == {g.prompt.id for g in plain["heldout_preferences"]}
    assert ids["preferences"] | ids["judge_preferences"] == {g.prompt.id for g in plain["preferences"]}
    assert not ids["preferences"] & ids["judge_preferences"]
    assert ids["prompts"] == ids["preferences"], "nor does one that samples ask them"
    assert 0.3 < len(ids["judge_preferences"]) / 180 < 0.5


@pytest.mark.parametrize(
    ("share", "data", "words"),
    [
        (0.0, "judge_preferences", "nothing makes `judge_preferences`"),
        (0.3, None, "used by nothing"),
        (1.5, "judge_preferences", "1.5"),
    ],
)
def test_a_split_for_the_judge_is_asked_for_and_made(share, data, words):
    train = {"train": {"steps": 1}} | ({"data": data} if data else {})
    own = {"data": {**TINY["data"], "judge_share": share}, "reward_models": {"rm": train}, "judge": {"reward": "rm"}}
    with pytest.raises(UserError) as caught:
        read_experiment({**TINY, **ARMS, **own})
    assert words in str(caught.value)


def test_the_share_changes_no_key_where_it_is_none():
    own = {"reward_models": {"rm": {"train": {"steps": 1}}}}
    one, other = (build(read_experiment({**TINY, **ARMS, **own, "data": {**TINY["data"], **more}}).value)
                  for more in ({}, {"judge_share": 0.0}))  # fmt: skip
    assert [n.key for n in one.nodes] == [n.key for n in other.nodes]
