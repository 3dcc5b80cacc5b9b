"""Reward models of several outputs that exist before the run: attributes with weights; an embedding that labels and judges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from evenhand.data.jsonl import read_groups
from evenhand.errors import UserError
from evenhand.models.load import new_policy, reward_model_from, save
from evenhand.rewards.attributes import AttributeReward
from evenhand.rewards.external import TextReward
from evenhand.spec.read import read_experiment
from evenhand.stages.common import open_model_reward
from evenhand.stages.pretrained_reward_model import reading
from evenhand.types import Completion, Finish, Group, Message, Prompt
from tests.doctor.patients import byte_tokenizer
from tests.stages.performed import setup
from tests.stages.test_adopt import TINY, experiment
from tests.stages.test_signals import carried_out

SETUP = setup(32, 12)
ASKED = Group(
    prompt=Prompt(content=(Message("user", "How far is it?"),)),
    completions=tuple(Completion(content=text, finish=Finish.STOP) for text in ("Far.", "It is far away.")),
)


def of_labels(folder: Path, *names: str) -> Path:
    """A classifier with these labels, in transformers' format."""
    tokenizer = byte_tokenizer()
    save(new_policy({"model_type": "llama", **TINY}, tokenizer, seed=0, device="cpu"), tokenizer, folder / "trunk")
    save(reward_model_from(folder / "trunk", seed=1, device="cpu", outputs=names), tokenizer, folder / "rm")
    return folder / "rm"


def logits(folder: Path, answer: str) -> list[float]:
    """transformers alone, on the whole rendered conversation."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "How far is it?"}, {"role": "assistant", "content": answer}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        return AutoModelForSequenceClassification.from_pretrained(folder)(input_ids=ids).logits[0].tolist()


@pytest.fixture(scope="module")
def attributes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return of_labels(tmp_path_factory.mktemp("attributes"), "helpful", "short", "kind")


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return of_labels(tmp_path_factory.mktemp("embedding"), "v0", "v1")


def opened(folder: Path, new_folder: Path, **settings: object):
    """Through the plan's own stage, in the experiment."""
    from evenhand.plan.plan import build
    from tests.stages.performed import perform

    raw = {**experiment(folder), "reward_models": {"rm": {"path": str(folder), **settings}}, "judge": {"reward": "gold"}}
    raw["arms"] = {"base": {"method": "start"}}
    plan = build(read_experiment(raw).value)
    start = new_folder / "start"
    tokenizer = byte_tokenizer()
    save(new_policy({"model_type": "llama", **TINY}, tokenizer, seed=0, device="cpu"), tokenizer, start / "model")
    spec = plan["reward_models/rm"].spec
    return open_model_reward(perform("pretrained_reward_model", spec, {"start": start}, new_folder / "out"), SETUP, "cpu")


def test_the_reward_is_the_weighted_sum_of_transformers_own_logits(attributes: Path, tmp_path: Path) -> None:
    reward = opened(attributes, tmp_path, method="attribute_reward_model", weights={"helpful": 2.0, "kind": -1.0})
    assert isinstance(reward, AttributeReward)
    assert isinstance(reward.model, TextReward)
    (found,) = reward([ASKED])
    rows = [logits(attributes, c.text) for c in ASKED.completions]
    assert found.values == pytest.approx([2.0 * h - k for h, _, k in rows], abs=1e-5)
    assert found.parts["short"] == pytest.approx([s for _, s, _ in rows], abs=1e-5)


def test_without_weights_all_count_alike(attributes: Path, tmp_path: Path) -> None:
    (found,) = opened(attributes, tmp_path, method="attribute_reward_model")([ASKED])
    assert found.values == pytest.approx([sum(logits(attributes, c.text)) / 3 for c in ASKED.completions], abs=1e-5)


def test_one_that_was_trained_here_reads_tokens_wherever_it_lies(embedding: Path, tmp_path: Path) -> None:
    assert reading(embedding) == "text"
    exported, kept = tmp_path / "exported", tmp_path / "seed-0" / "model"
    for folder in (exported, kept):
        folder.mkdir(parents=True)
    (exported / "evenhand.json").write_text("{}")
    (kept.parent / "reward.json").write_text('{"kind": "general_preference", "tau": 0.1}')
    assert (reading(exported), reading(kept)) == ("tokens", "tokens")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "attribute_reward_model", "weights": {"helpfull": 1.0}}, "did you mean 'helpful'"),
        ({"method": "attribute_reward_model", "weights": {"helpful": 0.0}}, "every weight is 0"),
        ({"method": "general_preference_model"}, "an embedding of 3 numbers"),
        ({"method": "general_preference_model", "tau": 0.0}, "a tau of 0"),
        ({"weights": {"helpful": 1.0}}, "has no weights"),
        ({"tau": 0.5}, "has no tau"),
        ({}, "3 labels, a reward model has one"),
    ],
)
def test_what_does_not_fit_is_refused(attributes: Path, tmp_path: Path, settings: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as caught:
        opened(attributes, tmp_path, **settings)
    assert words in str(caught.value)


def test_a_general_preference_model_labels_pairs_by_its_own_chance_and_judges(embedding: Path, tmp_path_factory) -> None:
    made = {"path": str(embedding), "method": "general_preference_model", "tau": 0.01}
    label = {"reward": "gpm", "prompts": 6, "heldout_prompts": 2, "labels": "soft"}
    arms = {"base": {"method": "start"}, "dpo": {"method": "dpo"}}
    raw = experiment(embedding, reward_models={"gpm": made}, annotate=label, arms=arms, judge={"reward": "gpm", "self_test": 0})
    plan, folders = carried_out(raw, tmp_path_factory.mktemp)
    reward = open_model_reward(folders["reward_models/gpm"], SETUP, "cpu")
    pairs = read_groups(folders["preferences"] / "preferences.jsonl")
    assert pairs
    for pair in pairs:
        assert pair.scores == pytest.approx(reward([pair])[0].values, abs=1e-6), "the chance of each against the other"
    verdicts = json.loads((folders[plan.verdicts["dpo"][0]] / "verdicts.json").read_text())
    assert all(0 <= outcome <= 1 for outcome in verdicts["outcome"])
    with pytest.raises(UserError, match=r"annotate\.noise"):
        read_experiment({**raw, "annotate": {**label, "noise": 0.5}})
