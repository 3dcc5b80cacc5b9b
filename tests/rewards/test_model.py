"""Scores of a reward model: against transformers alone, and free of how they are cut into micro-batches."""

import pytest
import torch

from evenhand import worlds
from evenhand.data.template import Renderer
from evenhand.errors import UserError
from evenhand.models.load import new_policy, reward_model_from, save
from evenhand.rewards.model import ModelReward, Normalisation
from evenhand.types import Completion, Finish, Group

TINY = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    world = worlds.get("quickstart")
    tokenizer = world.tokenizer()
    folder = tmp_path_factory.mktemp("models") / "base"
    save(new_policy({**world.model_config(), **TINY}, tokenizer, seed=0, device="cpu"), tokenizer, folder)
    model = reward_model_from(folder, seed=1, device="cpu")
    return model, Renderer(tokenizer), world.preferences(0, 7)


def reward(scene, **options):
    model, renderer, _ = scene
    defaults = {"max_prompt": None, "max_completion": None, "tokens_per_microbatch": 4096}
    return ModelReward(model, renderer, **{**defaults, **options})


def test_scores_equal_transformers_one_text_at_a_time(scene):
    model, renderer, groups = scene
    for group, scores in zip(groups, reward(scene)(groups), strict=True):
        for completion, value in zip(group.completions, scores.values, strict=True):
            turns = [{"role": "user", "content": group.prompt.text}, {"role": "assistant", "content": completion.text}]
            ids = renderer.tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=False)
            with torch.no_grad():
                hidden = model.hf.model(ids).last_hidden_state[0, -1]
                expected = float(model.hf.score(hidden))
            assert value == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("budget", [1, 150, 10_000])
def test_microbatches_change_nothing(scene, budget):
    whole = reward(scene)(scene[2])
    for a, b in zip(reward(scene, tokens_per_microbatch=budget)(scene[2]), whole, strict=True):
        assert a.values == pytest.approx(b.values, abs=1e-6)


def test_sampled_ids_are_scored_as_they_are(scene):
    _, renderer, groups = scene
    group = groups[0]
    tokens = renderer.tokenise(group, max_prompt=None, max_completion=None).completions
    sampled = Group(
        prompt=group.prompt,
        completions=tuple(Completion(content="not this text", tokens=t.ids, finish=Finish.STOP) for t in tokens),
    )
    assert reward(scene)([sampled])[0].values == pytest.approx(reward(scene)([group])[0].values, abs=1e-6)


def test_normalisation_shifts_and_scales(scene):
    plain = reward(scene)(scene[2])[0].values
    found = reward(scene, normalisation=Normalisation(shift=0.5, scale=2.0))(scene[2])[0].values
    assert found == pytest.approx([(v - 0.5) / 2.0 for v in plain])


def test_the_model_is_left_as_it_was(scene):
    model = scene[0]
    for training in (True, False):
        model.train(training)
        reward(scene)(scene[2][:1])
        assert model.training is training
    assert all(p.grad is None for p in model.parameters())


def test_normalisation_is_fitted_and_kept(tmp_path):
    fitted = Normalisation.fit([1.0, 3.0])
    assert fitted == Normalisation(shift=2.0, scale=1.0)
    fitted.save(tmp_path)
    assert Normalisation.load(tmp_path) == fitted
    assert Normalisation.load(tmp_path / "elsewhere") == Normalisation()


@pytest.mark.parametrize("scores", [[], [1.0], [2.0, 2.0], [1.0, float("nan")]])
def test_normalising_by_nothing_is_refused(scores):
    with pytest.raises(UserError, match="cannot normalise"):
        Normalisation.fit(scores)
