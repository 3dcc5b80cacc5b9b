"""What every registered world promises: enters by being registered."""

import numpy as np
import pytest
from scipy.optimize import minimize

from evenhand import worlds
from evenhand.errors import UserError
from evenhand.types import Message
from evenhand.worlds import labels
from evenhand.worlds.tokenizer import SPECIAL, word_tokenizer

NAMES = sorted(worlds.WORLDS)


@pytest.fixture(params=NAMES)
def world(request):
    return worlds.get(request.param)


def texts(groups):
    return [c.text for g in groups for c in g.completions]


def test_the_same_seed_gives_the_same_data_and_another_seed_other_data(world):
    for draw in (world.prompts, world.demonstrations, world.preferences, world.corpus):
        assert draw(0, 20) == draw(0, 20)
        assert draw(0, 20) != draw(1, 20)
        assert draw(0, 20)[:8] == draw(0, 8)


def test_prompts_are_different_conversations_that_end_with_the_user(world):
    prompts = world.prompts(0, 100)
    assert len({p.id for p in prompts}) == 100
    assert all(p.content[-1].role == "user" for p in prompts)


def test_heldout_prompts_never_occur_elsewhere(world):
    heldout = {p.text for seed in (0, 1) for p in world.prompts(seed, 100, "heldout")}
    heldout |= {g.prompt.text for g in world.preferences(0, 50, "heldout")}
    seen = {p.text for seed in (0, 1, 2) for p in world.prompts(seed, 300)}
    seen |= {g.prompt.text for g in world.demonstrations(0, 300)} | {g.prompt.text for g in world.preferences(0, 300)}
    corpus = "\n".join(texts(world.corpus(0, 500)))
    assert not heldout & seen
    assert not any(text in corpus for text in heldout)


def test_demonstrations_are_single_answers_without_scores(world):
    for group in world.demonstrations(0, 10):
        (answer,) = group.completions
        assert answer.content[0] == Message("assistant", answer.text)
        assert np.isnan(group.scores[0])


def test_preferences_are_pairs_of_different_texts_with_one_winner(world):
    groups = world.preferences(0, 200)
    assert all(sorted(g.scores) == [0.0, 1.0] for g in groups)
    assert all(g.completions[0].text != g.completions[1].text for g in groups)
    assert 0.35 < np.mean([g.scores[0] for g in groups]) < 0.65  # the winner stands on no side
    assert [g.parts["gold"] for g in groups] == [s.values for s in world.gold(groups)]


def test_gold_speaks_for_the_labels(world):
    """With gold differences, the better answer wins more often than not, and about as often as its ceiling says."""
    groups = worlds.with_annotator(world, bias_per_word=0.0).preferences(0, 600)
    decided = [g for g in groups if g.parts["gold"][0] != g.parts["gold"][1]]
    right = np.array([(g.parts["gold"][0] > g.parts["gold"][1]) == (g.scores[0] == 1.0) for g in decided])
    expected = labels.gold_ceiling(decided)
    assert expected > 0.6
    assert abs(right.mean() - expected) < 4 * np.sqrt(expected * (1 - expected) / len(decided))


def test_label_ceiling_is_the_accuracy_of_the_bayes_rule(world):
    groups = world.preferences(5, 400, "heldout")
    decided = [g for g in groups if g.parts["preference"][0] != 0.5]
    right = np.mean([(g.parts["preference"][0] > 0.5) == (g.scores[0] == 1.0) for g in decided])
    expected = labels.ceiling(decided)
    assert abs(right - expected) < 4 * np.sqrt(expected * (1 - expected) / len(decided))
    assert world.label_ceiling(5, len(groups)) == labels.ceiling(groups)


def test_the_tokenizer_is_lossless_and_knows_every_word(world):
    tokenizer = world.tokenizer()
    everything = texts(world.corpus(3, 400)) + texts(world.preferences(3, 200)) + [p.text for p in world.prompts(3, 200)]
    for text in everything:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text


def test_the_tokenizer_survives_saving(world, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = world.tokenizer()
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = world.demonstrations(0, 1)[0].completions[0].text
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.chat_template == tokenizer.chat_template
    assert again.get_vocab() == tokenizer.get_vocab()


def test_turns_are_marked_by_single_tokens(world):
    tokenizer = world.tokenizer()
    turns = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    assert text == "<bos><|user|>1<|end|><|assistant|>2<|end|>"
    asked = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    assert text.startswith(asked)
    assert [tokenizer.convert_tokens_to_ids(t) for t in SPECIAL] == list(range(len(SPECIAL)))
    assert tokenizer("<|end|>", add_special_tokens=False)["input_ids"] == [SPECIAL.index("<|end|>")]


def test_the_vocabulary_does_not_depend_on_the_order_of_texts():
    assert word_tokenizer(["b a", "c"]).get_vocab() == word_tokenizer(["c", "b a"]).get_vocab()


def test_unknown_names_get_a_hint():
    with pytest.raises(UserError, match="quickstart"):
        worlds.get("quikstart")
    with pytest.raises(UserError, match="numbers"):
        worlds.get("countdown", number=4)
    with pytest.raises(UserError, match="train"):
        worlds.get("quickstart").prompts(0, 1, "test")


def test_a_small_world_says_when_it_is_exhausted():
    with pytest.raises(UserError, match="there seem to be only"):
        worlds.get("arithmetic", digits=1).prompts(0, 1000)


# the quickstart world's own promises ----------------------------------------------------------------------------------


def test_quickstart_leaves_headroom_and_is_not_saturated():
    world = worlds.get("quickstart")
    gold = np.array([s.values[0] for s in world.gold(world.demonstrations(0, 1000))])
    assert 0.4 < gold.mean() < 0.6
    assert gold.std() > 0.15
    assert np.quantile(gold, 0.9) < 0.95
    assert len(set(gold.round(3))) > 100  # graded


def test_quickstart_labels_carry_a_length_bias_that_gold_does_not():
    world = worlds.get("quickstart")
    groups = world.preferences(0, 1500)
    longer = [g for g in groups if len(labels.words(g.completions[0].text)) != len(labels.words(g.completions[1].text))]
    first_longer = np.array([np.diff([len(labels.words(c.text)) for c in g.completions])[0] < 0 for g in longer])
    wins = np.array([g.scores[0] == 1.0 for g in longer])
    better = np.array([g.parts["gold"][0] >= g.parts["gold"][1] for g in longer])
    assert (wins == first_longer).mean() > 0.56  # annotators like long answers
    assert abs((better == first_longer).mean() - 0.5) < 0.05  # which are neither better nor worse
    unbiased = worlds.with_annotator(world, bias_per_word=0.0)
    assert labels.gold_ceiling(unbiased.preferences(0, 1000)) > labels.gold_ceiling(groups)


def test_quickstart_labels_can_be_learned_by_counting_words():
    """What a small reward model sees first: words and length. It must carry far beyond the length bias, short of the ceiling."""
    world = worlds.get("quickstart")
    train, heldout = world.preferences(0, 1500), world.preferences(1, 600, "heldout")
    index = {w: i for i, w in enumerate(sorted({w for t in texts(train) + texts(heldout) for w in labels.words(t)}))}

    def counts(text):
        return np.bincount([index[w] for w in labels.words(text)], minlength=len(index))

    def differences(groups):
        x = np.array([counts(g.completions[0].text) - counts(g.completions[1].text) for g in groups], dtype=float)
        return x, np.array([g.scores[0] - g.scores[1] for g in groups])

    def loss(weights):  # logistic regression on differences is Bradley-Terry on word counts
        margin = sign * (x @ weights)
        gradient = -x.T @ (sign / (1 + np.exp(margin))) / len(sign)
        return np.logaddexp(0, -margin).mean() + 0.01 * weights @ weights, gradient + 0.02 * weights

    x, sign = differences(train)
    weights = minimize(loss, np.zeros(len(index)), jac=True, method="L-BFGS-B").x
    x_heldout, sign_heldout = differences(heldout)
    accuracy = np.mean(sign_heldout * (x_heldout @ weights) > 0)
    by_length = np.mean(sign_heldout * x_heldout.sum(1) > 0)
    assert by_length + 0.08 < accuracy < labels.ceiling(heldout)


def test_quickstart_ceiling_and_sizes_fit_the_demo():
    world = worlds.get("quickstart")
    assert 0.76 < world.label_ceiling(0, 1000) < 0.86
    tokenizer = world.tokenizer()
    assert 200 <= len(tokenizer) <= 600
    lengths = [len(tokenizer(t)["input_ids"]) for t in texts(world.demonstrations(0, 500))]
    assert max(lengths) <= 48
    assert max(len(tokenizer(p.text)["input_ids"]) for p in world.prompts(0, 500)) + 4 <= 24


def test_pinned_text():
    """A changed world changes results: raise its version when this fails on purpose."""
    world = worlds.get("quickstart")
    assert world.version == 1
    assert world.prompts(0, 1)[0].text == "Please send Rosa a note about the sea and the train that sounds worried."
