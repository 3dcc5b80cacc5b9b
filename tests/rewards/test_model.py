"""Scores of a reward model: against transformers alone, and free of how they are cut into micro-batches."""

import pytest
import torch

from evenhand import worlds
from evenhand.data import window
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
    """Two ways to sample one text: each is scored on its own ids, however the tokenizer would have cut the text."""
    _, renderer, groups = scene
    ids = renderer.tokenise(groups[0], max_prompt=None, max_completion=None).completions[0].ids
    with_mark = (renderer.tokenizer.bos_token_id, *ids)  # a special token that the text does not show
    text = groups[0].completions[0].text
    said = [Completion(content=text, tokens=t, finish=Finish.STOP) for t in (ids, with_mark)]
    group = Group(prompt=groups[0].prompt, completions=(Completion(content=text), *said))
    given, canonical, other = reward(scene)([group])[0].values
    assert canonical == pytest.approx(given, abs=1e-6)
    assert abs(other - canonical) > 1e-5


def test_ids_of_another_tokenizer_are_tokenised_anew(scene):
    """An identical text scores the same, whoever sampled it: the other vocabulary's ids say other words, or none here."""
    _, renderer, groups = scene
    text = groups[0].completions[0].text
    ids = renderer.tokenise(groups[0], max_prompt=None, max_completion=None).completions[0].ids
    shifted = tuple(i + 1 for i in ids)
    beyond = (*ids[:-1], len(renderer.tokenizer) + 7)
    said = [Completion(content=text, tokens=t, finish=Finish.STOP) for t in (shifted, beyond, ids[:-1])]
    group = Group(prompt=groups[0].prompt, completions=(Completion(content=text), *said))
    values = reward(scene)([group])[0].values
    assert values == pytest.approx([values[0]] * 4, abs=1e-6)


def test_a_cut_answer_of_another_tokenizer_gets_no_end(scene):
    _, renderer, groups = scene
    text = groups[0].completions[0].text
    ids = renderer.tokenise(groups[0], max_prompt=None, max_completion=None).completions[0].ids[:-1]
    own, foreign = (Completion(content=text, tokens=t, finish=Finish.LENGTH) for t in (ids, (*ids[:-1], 10**6)))
    values = reward(scene)([Group(prompt=groups[0].prompt, completions=(own, foreign))])[0].values
    assert values[0] == pytest.approx(values[1], abs=1e-6)


def test_what_the_context_does_not_hold_is_said_or_refused(scene, caplog):
    model, renderer, groups = scene
    window._say.cache_clear()
    tokens = renderer.tokenise(groups[0], max_prompt=None, max_completion=None)
    longest = max(len(c.ids) for c in tokens.completions)
    whole = reward(scene, max_prompt=3)(groups[:1])[0].values
    config = model.hf.config
    before = config.max_position_embeddings
    try:
        config.max_position_embeddings = longest + 3
        assert reward(scene)(groups[:1])[0].values == pytest.approx(whole, abs=1e-6)
        reward(scene)(groups[:1])
        assert [r.getMessage().count("lose their beginning") for r in caplog.records] == [1], "said once"
        config.max_position_embeddings = longest
        with pytest.raises(UserError, match=f"an answer of {longest} tokens does not fit the {longest}"):
            reward(scene)(groups[:1])
    finally:
        config.max_position_embeddings = before


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
