"""The gold reward of notes, computed by hand on literal texts, and the language it is about."""

import re

import pytest

from evenhand.seeding import rng
from evenhand.types import Completion, Group, Message, Prompt
from evenhand.worlds import notes_grammar as grammar
from evenhand.worlds.labels import words
from evenhand.worlds.notes import Notes, NotesGold, fill, note_parts, split_of

ASKED = {"name": "Mara", "tone": "happy", "topics": ["garden", "rain"]}
GOOD = "Dear Mara, The garden is bright and golden today. I feel glad about the rain. With love, Tom."


def parts(text: str, limit: int = 22) -> dict[str, float]:
    return note_parts(text, ASKED, limit)


def gold(*texts: str) -> tuple[float, ...]:
    group = Group(prompt=Prompt(content="p", meta=ASKED), completions=tuple(Completion(content=t) for t in texts))
    return NotesGold()([group])[0].values


def test_a_perfect_note_scores_one():
    assert parts(GOOD) == {"topics": 1, "tone": 1, "form": 1, "repetition": 0, "salad": 0, "rambling": 0}
    assert gold(GOOD) == pytest.approx((1.0,))


def test_each_fault_costs_what_the_weights_say():
    other_topic = GOOD.replace("rain", "piano")  # 1/2 named, less 1/4 for the piano
    other_tone = GOOD.replace("glad", "sad")  # own 2, other 1: 2/3 * 2/3 of the tone
    wrong_name = GOOD.replace("Mara", "Theo")
    no_closing = GOOD.replace(" With love, Tom.", "")
    assert gold(other_topic, other_tone, wrong_name, no_closing) == pytest.approx(
        (1 - 0.4 * 0.75, 1 - 0.4 * (1 - 4 / 9), 1 - 0.2 * 0.5, 1 - 0.2 * 0.5)
    )


def test_repetition_is_the_share_of_three_word_runs_seen_before():
    text = "Dear Mara, I feel glad about the rain. I feel glad about the rain."
    # 14 words, 12 runs; "i feel glad", "feel glad about", "glad about the", "about the rain" come twice
    assert parts(text)["repetition"] == pytest.approx(4 / 12)


def test_salad_is_the_share_of_pairs_the_language_does_not_allow():
    # body pairs: (garden rain), (rain happy), (happy glad): none allowed; whereas "the garden" alone is
    assert parts("Dear Mara, garden rain happy glad. With love, Tom.")["salad"] == 1.0
    assert parts("Dear Mara, The garden happy. With love, Tom.")["salad"] == 0.5
    assert parts("Dear Mara, With love, Tom.")["salad"] == 1.0  # nothing was said


def test_topics_never_fall_below_zero():
    assert parts("piano boat moon bridge")["topics"] == 0.0


def test_tone_needs_three_different_words():
    assert parts("glad glad glad")["tone"] == pytest.approx(1 / 3)
    assert parts("glad merry bright")["tone"] == 1.0
    assert parts("glad merry bright golden joyful")["tone"] == 1.0
    assert parts("nothing felt here")["tone"] == 0.0


def test_length_is_only_ever_fined():
    long = GOOD.replace(" With love", " It is what it is. It is what it is. With love")
    assert len(words(long)) == 28
    assert parts(long)["rambling"] == 6.0
    assert gold(long)[0] < gold(GOOD)[0] - 0.06


def test_empty_and_foreign_texts_score_low_and_do_not_fail():
    assert all(value <= 0 for value in gold("", " ", "…", "12 % of 😀"))


def test_a_prompt_without_completions_has_no_scores():
    assert NotesGold()([Group(prompt=Prompt(content="p", meta=ASKED), completions=())])[0].values == ()


def test_weights_of_the_merits_sum_to_one():
    weights = NotesGold().weights
    assert weights.topics + weights.tone + weights.form == pytest.approx(1.0)


def test_no_word_means_two_things():
    fixed = {w for pattern in (*grammar.TOPIC_SENTENCES, *grammar.FILLERS) for w in words(re.sub(r"\{\w+\}", "", pattern))}
    feelings = [w for kinds in grammar.TONES.values() for kind in kinds.values() for w in kind]
    assert len(set(feelings)) == len(feelings)
    assert not fixed & (set(feelings) | set(grammar.TOPICS))
    assert not set(feelings) & set(grammar.TOPICS)


def test_the_writer_speaks_the_language():
    """Salad of the writer's own notes is 0: the checker and the writer agree on what a sentence is."""
    task, generator = Notes(), rng(1)
    for _ in range(200):
        prompt = task.request(generator, "train")
        assert note_parts(task.answer(prompt, generator), prompt.meta, 22)["salad"] == 0.0


def test_a_writer_of_full_skill_does_as_asked():
    task, generator = Notes(skill=(1.0, 1.0)), rng(2)
    for _ in range(50):
        prompt = task.request(generator, "train")
        found = note_parts(task.answer(prompt, generator), prompt.meta, 22)
        assert (found["topics"], found["form"]) == (1.0, 1.0)


def test_fill_uses_what_is_given_in_order_and_never_a_feeling_twice():
    assert fill("{topic} then {topic} for {name}", rng(0), topic="sea", second="snow", name="Ada") == "sea then snow for Ada"
    for i in range(30):
        first, second = fill("{mood} {mood}", rng(i), tone="sad").split()
        assert first != second


def test_the_split_ignores_the_order_of_topics():
    assert split_of("sad", ["sea", "snow"]) == split_of("sad", ["snow", "sea"])


def test_requests_are_conversations_with_what_the_gold_needs():
    prompt = Notes().request(rng(5), "heldout")
    (message,) = prompt.content
    assert isinstance(message, Message)
    assert message.role == "user"
    assert all(word in message.content for word in (prompt.meta["name"], prompt.meta["tone"], *prompt.meta["topics"]))
    assert split_of(prompt.meta["tone"], prompt.meta["topics"]) == "heldout"
