"""A process reward model: rows of steps, where each is scored, what the steps come to, and what each of them earns."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace

import pytest
import torch

from evenhand.core import process
from evenhand.data.load import load
from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.methods import build
from evenhand.models.heads import scored
from evenhand.rewards import get
from evenhand.rewards.model import ModelReward
from evenhand.rewards.process import ProcessReward
from evenhand.stages.evaluate_reward_model import labelled_columns
from evenhand.stats.reward_model import pair_metrics
from evenhand.types import Completion, Finish, Group, Prompt, Scores
from tests.data.tiny_tokenizers import character_tokenizer

ROWS = [
    {"prompt": "2+2+2?", "steps": ["2+2=4", "4+2=7", "It is 7."], "labels": [1, 0, False]},
    {"prompt": "1+1?", "steps": ["1+1=2\n", "It is 2."], "labels": [True, None]},
    {"prompt": "3+1?", "steps": ["4"], "labels": [-1]},
]


@pytest.fixture(scope="module")
def reward() -> ModelReward:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    renderer = Renderer(character_tokenizer())
    config = AutoConfig.for_model(
        "llama", vocab_size=len(renderer.tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, num_labels=1, pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    model = scored(AutoModelForSequenceClassification.from_config(config), 0)
    return ModelReward(model, renderer, max_prompt=64, max_completion=64, tokens_per_microbatch=60)


def test_what_steps_come_to():
    steps = [0.9, 0.5, 0.8]
    found = {name: rule(steps) for name, rule in process.AGGREGATES.items()}
    known = {"min": 0.5, "product": 0.36, "last": 0.8, "mean": 2.2 / 3, "differences": 0.8}
    assert found == pytest.approx(known)
    assert process.differences(steps) == pytest.approx([0.9, -0.4, 0.3])
    assert sum(process.differences(steps)) == pytest.approx(found["last"])


@pytest.mark.parametrize("name", ["steps", "completions"])
def test_a_row_is_a_labelled_answer_per_step(tmp_path, name):
    rows = [{name if k == "steps" else k: v for k, v in row.items()} for row in ROWS]
    path = tmp_path / "steps.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    groups = load(str(path)).groups
    told = [(g.prompt.text, g.completions[0].text, g.scores[0], g.completions[0].finish) for g in groups]
    assert told == [
        ("2+2+2?", "2+2=4\n", 1.0, Finish.LENGTH), ("2+2+2?", "2+2=4\n4+2=7\n", 0.0, Finish.LENGTH),
        ("2+2+2?", "2+2=4\n4+2=7\nIt is 7.", 0.0, Finish.GIVEN), ("1+1?", "1+1=2\n", 1.0, Finish.LENGTH),
        ("3+1?", "4", 0.0, Finish.GIVEN),
    ]  # fmt: skip


def test_rows_may_say_what_their_steps_end_with(tmp_path):
    row = {"prompt": "?", "steps": ["a\nb", "c\n\n", "d"], "labels": [1, 0, 1], "separator": "\n\n"}
    path = tmp_path / "steps.jsonl"
    path.write_text(json.dumps(row) + "\n")
    groups = load(str(path)).groups
    assert [g.completions[0].text for g in groups] == ["a\nb\n\n", "a\nb\n\nc\n\n", "a\nb\n\nc\n\nd"]
    assert [g.prompt.meta["step"] for g in groups] == [1, 2, 3]


@pytest.mark.parametrize("wrong", [{"labels": [1]}, {"labels": [1, 0, 2]}, {"steps": ["2", " ", "3"]}])
def test_rows_that_are_none_are_named(tmp_path, wrong):
    path = tmp_path / "steps.jsonl"
    path.write_text(json.dumps({**ROWS[0], **wrong}) + "\n")
    with pytest.raises(UserError, match=r"labels|steps"):
        load(str(path))


def test_only_the_last_step_has_a_stop_token(reward):
    renderer = reward.renderer
    cut = Group(prompt=Prompt(content="ab"), completions=(Completion(content="a=b\n", finish=Finish.LENGTH),))
    whole = Group(prompt=Prompt(content="ab"), completions=(Completion(content="a=b\nc"),))
    first, last = (renderer.tokenise(g, max_prompt=None, max_completion=None).completions[0] for g in (cut, whole))
    assert last.ids[: len(first.ids)] == first.ids, "a step is a beginning of the answer, token by token"
    assert (first.ids[-1] in renderer.stop_ids, last.ids[-1] in renderer.stop_ids) == (False, True)


TEXT = "2+2=4\n\n \n4+2=6\nIt is 6."


def test_steps_are_scored_at_their_last_tokens_by_the_plain_network(reward):
    """sigmoid of the score head on prompt and beginning alone, by transformers' forward."""
    group = Group(prompt=Prompt(content="2+2+2?"), completions=(Completion(content=TEXT), Completion(content="6")))
    renderer, model = reward.renderer, reward.reward_model
    tokens = renderer.tokenise(group, max_prompt=None, max_completion=None)
    known = []
    for completion, ends in zip(tokens.completions, ([6, 15, 24], [2]), strict=True):
        assert ProcessReward(reward).ends(completion.ids) == ends
        rows = [torch.tensor([[*tokens.prompt, *completion.ids[:end]]]) for end in ends]
        with torch.no_grad():
            known.append([float(torch.sigmoid(model.hf.score(model.hf.model(r).last_hidden_state[0, -1])[0])) for r in rows])
    for name, rule in process.AGGREGATES.items():
        (found,) = ProcessReward(reward, aggregate=name)([group])
        assert found.values == pytest.approx([rule(k) for k in known], abs=1e-6)
        assert found.parts["steps"] == (3.0, 1.0)
        assert found.parts["least"] == pytest.approx(list(map(min, known)), abs=1e-6)
    (dense,) = ProcessReward(reward, aggregate="differences")([group])
    row = dense.earned[0]
    assert [row[n - 1] for n in (6, 15, 24)] == pytest.approx(process.differences(known[0]), abs=1e-6)
    assert [sum(r) for r in dense.earned] == pytest.approx(dense.values, abs=1e-6)
    assert sum(v != 0.0 for v in row) == 3


STEPS_OF_PIECES = [
    ("\n\n", ["a", "\n", "\n", "b", "\n", "c"], [3, 6]),  # one line break ends nothing
    ("Step", ["x", "St", "ep", "y"], [3, 4]),
    ("\n", ["a", "\nb", "\n", "c"], [2, 3, 4]),
    ("\n", ["a", "\nb"], [2]),  # no end of its own is left to the second
    ("\n", ["\n", "a", "\n", "\n"], [4]),
]


@pytest.mark.parametrize(("separator", "pieces", "ends"), STEPS_OF_PIECES)
def test_a_separator_ends_a_step_however_it_is_cut_into_tokens(separator, pieces, ends):
    renderer = SimpleNamespace(piece=lambda ids: "".join(pieces[i] for i in ids), stop_ids=frozenset())
    assert ProcessReward(SimpleNamespace(renderer=renderer), separator=separator).ends(range(len(pieces))) == ends


def test_an_empty_separator_is_refused():
    with pytest.raises(UserError, match="ends no step"):
        build("process_reward_model", {"separator": ""}, steps=1, max_tokens=8)


def test_sampled_ids_are_scored_as_they_are(reward):
    ids = tuple(reward.renderer.tokenizer.encode("4\n5", add_special_tokens=False))
    group = Group(prompt=Prompt(content="2+2?"), completions=(Completion(content="4\n5", tokens=ids, finish=Finish.LENGTH),))
    (found,) = ProcessReward(reward, aggregate="differences")([group])
    assert len(found.earned[0]) == len(ids)
    assert found.parts["steps"] == (2.0,)


def test_an_experiment_may_join_the_steps_otherwise(reward):
    trained = {"rm": ProcessReward(reward)}
    assert get({"kind": "model", "name": "rm"}, trained).aggregate == "min"
    assert get({"kind": "model", "name": "rm", "rule": "product"}, trained).aggregate == "product"
    with pytest.raises(UserError, match="'borda'"):
        get({"kind": "model", "name": "rm", "rule": "borda"}, trained)
    made = build("process_reward_model", {"aggregate": "last"}, steps=1, max_tokens=8)
    assert made.implied_reward == {"kind": "process", "aggregate": "last", "separator": "\n"}
    with pytest.raises(UserError, match="'most'"):
        build("process_reward_model", {"aggregate": "most"}, steps=1, max_tokens=8)


def test_the_card_of_labelled_steps_is_that_of_their_probabilities():
    """Accuracy and cross-entropy of sigmoid(score), by hand."""
    scores, labels = [2.0, -1.0, 0.5], [1.0, 0.0, 0.0]
    groups = [Group(prompt=Prompt(content="?"), completions=(Completion(content="x"),), scores=(label,)) for label in labels]
    found = labelled_columns(groups, [Scores((s,)) for s in scores])
    metrics = pair_metrics(found["chosen"], found["rejected"], found["chosen_chars"], found["rejected_chars"])
    p = [1 / (1 + math.exp(-s)) for s in scores]
    assert metrics.accuracy == pytest.approx(2 / 3)
    assert metrics.log_loss == pytest.approx(-(math.log(p[0]) + math.log(1 - p[1]) + math.log(1 - p[2])) / 3)
