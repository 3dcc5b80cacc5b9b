"""Reward models that exist before the run: through the real plan and stages, with a tokenizer that the policy does not share."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, pstdev
from typing import Literal

import pytest
import torch

from evenhand import worlds
from evenhand.data.jsonl import read_groups
from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.models.load import new_policy, reward_model_from, save
from evenhand.plan import plan as planner
from evenhand.rewards.external import TextReward
from evenhand.rewards.model import ModelReward, Normalisation
from evenhand.spec import checks
from evenhand.spec.read import read_experiment
from evenhand.stages.base import ModelSource
from evenhand.stages.common import open_model_reward
from evenhand.stages.pretrained_reward_model import PretrainedRewardModelSpec
from evenhand.types import Completion, Finish, Group, Message, Prompt
from tests.doctor.patients import TEMPLATE, byte_tokenizer
from tests.stages.performed import perform, setup
from tests.stages.test_signals import TRAIN, carried_out

TINY = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
SETUP = setup(32, 12)


def classifier(folder: Path, tokenizer) -> Path:
    """A reward model in transformers' format, for this tokenizer."""
    save(new_policy({"model_type": "llama", **TINY}, tokenizer, seed=0, device="cpu"), tokenizer, folder / "trunk")
    save(reward_model_from(folder / "trunk", seed=1, device="cpu"), tokenizer, folder / "rm")
    return folder / "rm"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> Path:
    return classifier(tmp_path_factory.mktemp("foreign"), byte_tokenizer())


def experiment(path: Path, **changes) -> dict:
    return {
        "name": "adopted",
        "baseline": "base",
        "initial_policy": "base",
        "data": {"world": "quickstart", "sizes": {"preferences": 24, "prompts": 16, "heldout_preferences": 12}},
        "model": {"pretrain": {"documents": 32, "train": TRAIN}},
        "lengths": {"prompt": 32, "completion": 12},
        "reward_models": {"rm": {"path": str(path), "normalise": True}},
        "train": TRAIN,
        "arms": {"base": {"method": "start"}, "rloo": {"method": "rloo", "reward": "rm", "completions_per_prompt": 2}},
        "judge": {"reward": "rm"},
        "evaluation": {"prompts": 6},
        "runtime": {"device": "cpu"},
        **changes,
    }


@pytest.fixture(scope="module")
def done(foreign, tmp_path_factory):
    return carried_out(experiment(foreign), tmp_path_factory.mktemp)


def logit(folder: Path, prompt: str, answer: str, *, closed: bool | str) -> float:
    """transformers alone; `closed`: with what the template writes behind the answer, without, or up to a mark of it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    kept = text if closed is True else text.rpartition("<|end|>")[0] + (closed or "")
    ids = tokenizer(kept, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        return float(AutoModelForSequenceClassification.from_pretrained(folder)(input_ids=ids).logits[0, 0])


def test_it_is_opened_once_for_all_and_never_trained(foreign):
    plan = planner.build(read_experiment(experiment(foreign, seeds=[0, 1])).value)
    about = [n for n in plan.nodes if n.name.startswith("reward_models/")]
    assert [n.kind for n in about] == ["pretrained_reward_model", "evaluate_reward_model"]
    assert {n.inputs["reward_models/rm"] for n in plan.nodes if n.name.startswith("arms/rloo")} == {"reward_models/rm"}


def test_sampled_answers_are_scored_as_text_by_the_models_own_tokenizer(done, foreign):
    plan, folders = done
    verdicts = json.loads((folders[plan.verdicts["rloo"][0]] / "verdicts.json").read_text())
    answers = read_groups(folders[plan.generations["rloo"][0]] / "generations.jsonl")
    scale = Normalisation.load(folders["reward_models/rm"])
    assert len(answers) == 6
    scores = json.loads((folders["scores/rloo/seed-0/rm"] / "scores.json").read_text())["scores"]
    for group, (proxy,), gold in zip(answers, scores, verdicts["gold"], strict=True):
        answer = group.completions[0]
        closed = answer.finish is Finish.STOP
        expected = (logit(foreign, group.prompt.text, answer.text, closed=closed) - scale.shift) / scale.scale
        assert proxy == gold == pytest.approx(expected, abs=1e-4)


def test_its_card_is_made_of_held_out_pairs(done):
    plan, folders = done
    scores = json.loads((folders[plan.reward_models["rm"][0]] / "scores.json").read_text())
    assert len(scores["chosen"]) == 12


def test_its_scale_is_that_of_the_experiments_own_answers(done, foreign):
    _, folders = done
    rows = read_groups(folders["data"] / "preferences.jsonl")
    values = [logit(foreign, g.prompt.text, c.text, closed=True) for g in rows for c in g.completions]
    scale = Normalisation.load(folders["reward_models/rm"])
    assert (scale.shift, scale.scale) == pytest.approx((fmean(values), pstdev(values)), rel=1e-3)


def adopted(path: Path, out: Path, kind: Literal["score", "preference"] = "score") -> Path:
    """The stage alone, beside a policy of the quickstart world."""
    out.mkdir()
    start = out / "start"
    tokenizer = worlds.get("quickstart").tokenizer()
    shape = {**worlds.get("quickstart").model_config(), **TINY}
    save(new_policy(shape, tokenizer, seed=0, device="cpu"), tokenizer, start / "model")
    spec = PretrainedRewardModelSpec(model=ModelSource(path=str(path)), kind=kind, setup=SETUP)
    return perform("pretrained_reward_model", spec, {"start": start}, out)


def test_one_of_ours_on_the_same_tokenizer_reads_ids_and_any_other_reads_text(foreign, tmp_path):
    ours = classifier(tmp_path, worlds.get("quickstart").tokenizer())
    Normalisation(shift=1.0, scale=2.0).save(ours)
    reward = open_model_reward(adopted(ours, tmp_path / "a"), SETUP, "cpu")
    assert type(reward) is ModelReward
    assert reward.normalisation == Normalisation(shift=1.0, scale=2.0), "its own scale goes with it"
    assert type(open_model_reward(adopted(foreign, tmp_path / "b"), SETUP, "cpu")) is TextReward
    (ours / "reward_normalisation.json").unlink()
    assert type(open_model_reward(adopted(ours, tmp_path / "c"), SETUP, "cpu")) is TextReward


def test_one_of_ours_reads_another_policys_answers_where_it_was_trained_to(tmp_path):
    """One reader for one model: beside a policy of another tokenizer it scores the stop token, as in the run that trained it."""
    line_behind = byte_tokenizer(TEMPLATE.replace("'<|end|>'", "'<|end|>\n'"))
    ours = classifier(tmp_path, line_behind)
    Normalisation().save(ours)
    reward = open_model_reward(adopted(ours, tmp_path / "a"), SETUP, "cpu")
    assert type(reward) is ModelReward
    assert reward.max_completion is None, "lengths of the run are in the policy's tokens"
    prompt = Prompt(content=(Message("user", "How far is it?"),))
    sampled = Completion(content="It is far away from here.", tokens=(3, 1, 4), finish=Finish.STOP)
    found = reward([Group(prompt=prompt, completions=(sampled,))])[0].values[0]
    assert found == pytest.approx(logit(ours, "How far is it?", sampled.text, closed="<|end|>"), abs=1e-5)
    assert found != pytest.approx(logit(ours, "How far is it?", sampled.text, closed=True), abs=1e-5), "the line behind it"


def test_a_fingerprint_is_kept_by_saving(tmp_path):
    from evenhand.models.load import load_tokenizer

    tokenizer = worlds.get("quickstart").tokenizer()
    again = Renderer(load_tokenizer(classifier(tmp_path, tokenizer)))
    assert again.fingerprint == Renderer(tokenizer).fingerprint


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: _config(f, id2label={"0": "a", "1": "b"}, label2id={"a": 0, "b": 1}), "2 labels, a reward model has one"),
        (lambda f: (f / "model.safetensors").unlink(), "no *.safetensors file"),
        (lambda f: (f / "config.json").unlink(), "config"),
    ],
)
def test_what_is_no_reward_model_is_refused(change, words, tmp_path):
    folder = classifier(tmp_path, byte_tokenizer())
    change(folder)
    with pytest.raises(UserError) as caught:
        adopted(folder, tmp_path / "out")
    assert words in str(caught.value)


def test_a_policy_is_no_reward_model(tmp_path):
    classifier(tmp_path, byte_tokenizer())
    _config(tmp_path / "trunk", num_labels=1)
    with pytest.raises(UserError, match=r"score\.weight"):
        adopted(tmp_path / "trunk", tmp_path / "out")


def test_a_name_that_nobody_knows_is_said_where_it_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="reward_models: cannot find 'no-one/no-model'"):
        adopted(Path("no-one/no-model"), tmp_path / "out")


def _config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"pth": "x"}, "unknown key 'pth'"),
        ({"path": "x", "train": {"steps": 3}}, "`path` and `train` exclude each other"),
        ({"path": "x", "method": "dpo"}, "dpo"),
        ({"path": "x", "method": "preference_model", "normalise": True}, "no scale"),
        ({"path": "x", "tempalte": "tulu"}, "did you mean 'template'"),
    ],
)
def test_settings_are_checked(raw, words, foreign):
    with pytest.raises(UserError) as caught:
        _planned(experiment(foreign, reward_models={"rm": raw}))
    assert words in str(caught.value)


def test_only_a_model_that_exists_can_label_the_pairs(foreign):
    label = {"reward": "rm", "prompts": 4, "heldout_prompts": 2}
    plan = _planned(experiment(foreign, annotate=label, reward_models={"rm": {"path": str(foreign)}}))
    assert plan["preferences"].inputs["reward_models/rm"] == "reward_models/rm"
    with pytest.raises(UserError, match="trained on the pairs that it is to label"):
        _planned(experiment(foreign, annotate=label, reward_models={"rm": {"train": TRAIN}}))


def _planned(raw: dict):
    loaded = read_experiment(raw).value
    for problem in checks.problems(loaded):
        raise problem
    return planner.build(loaded)


def test_a_preference_model_compares_texts(foreign, tmp_path):
    from evenhand.rewards.tournament import Tournament

    reward = open_model_reward(adopted(foreign.parent / "trunk", tmp_path / "out", kind="preference"), SETUP, "cpu")
    assert isinstance(reward, Tournament)
    group = worlds.get("quickstart").preferences(0, 1)[0]
    assert sum(reward([group])[0].values) == pytest.approx(1.0), "shares of the wins, of which there is one"
