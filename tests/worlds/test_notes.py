"""The gold reward of notes, computed by hand on literal texts, and the language it is about."""

import re

import pytest

from evenhand.seeding import rng
from evenhand.types import Completion, Group, Message, Prompt
from evenhand.worlds import notes_grammar as grammar
from evenhand.worlds.labels import words
from evenhand.worlds.notes import Notes, NotesGold, fill, note_parts, split_of

ASKED = {"name": "Mara", "tone": "happy", "topics": ["garden", "rain"]}
GOOD = "Dear Mara, The garden is bright and golden today. You would feel glad and merry at the rain. With love, Tom."


def parts(text: str, limit: int = 24) -> dict[str, float]:
    return note_parts(text, ASKED, limit)


def gold(*texts: str) -> tuple[float, ...]:
    group = Group(prompt=Prompt(content="p", meta=ASKED), completions=tuple(Completion(content=t) for t in texts))
    return NotesGold()([group])[0].values


def test_a_perfect_note_scores_one():
    fines = dict.fromkeys(("idle", "repetition", "salad", "rambling"), 0)
    assert parts(GOOD) == {"topics": 1, "tone": 1, "vivid": 1, "name": 1, "ending": 1, **fines}
    assert gold(GOOD) == pytest.approx((1.0,))


def test_each_fault_costs_what_the_weights_say():
    faulty = {
        GOOD.replace("rain", "piano"): 0.1 * 0.75,  # half of the topics, less a quarter for the piano
        GOOD.replace("glad", "sad"): 0.1 * 0.25,  # one word of four in another mood
        GOOD.replace("Mara", "Theo"): 0.05,
        GOOD.replace(" With love, Tom.", ""): 0.3,
        GOOD.replace("The garden is bright and golden today.", "I feel merry about the garden."): 0.45 * 0.5,
    }
    assert gold(*faulty) == pytest.approx([1.0 - cost for cost in faulty.values()])


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


def test_tone_is_the_share_of_different_words_in_the_mood():
    assert parts("glad glad glad sad")["tone"] == 0.5
    assert parts("glad merry")["tone"] == 1.0
    assert parts("nothing felt here")["tone"] == 0.0


def test_vivid_counts_up_to_four_different_words_of_any_mood():
    assert parts("glad glad sad")["vivid"] == 0.5
    assert parts("glad sad calm eager")["vivid"] == 1.0
    assert parts("glad sad calm eager lucky dark")["vivid"] == 1.0


def test_idle_counts_sentences_of_the_body_without_feeling():
    assert parts(GOOD.replace(" With love", " It is what it is. I hope to write again soon. With love"))["idle"] == 2.0
    assert parts("Dear Mara, With love, Tom.")["idle"] == 0.0


def test_length_is_only_ever_fined():
    long = GOOD.replace(" With love", " My mother felt joyful near the rain. With love")
    assert len(words(GOOD)) == 21
    assert len(words(long)) == 28
    assert parts(long)["rambling"] == 4.0
    assert gold(long)[0] == pytest.approx(1.0 - 0.04)


def test_empty_and_foreign_texts_score_low_and_do_not_fail():
    assert all(value <= 0 for value in gold("", " ", "…", "12 % of 😀"))


def test_a_prompt_without_completions_has_no_scores():
    assert NotesGold()([Group(prompt=Prompt(content="p", meta=ASKED), completions=())])[0].values == ()


def test_weights_of_the_merits_sum_to_one():
    weights = NotesGold().weights
    merits = (weights.topics, weights.tone, weights.vivid, weights.name, weights.ending)
    assert sum(merits) == pytest.approx(1.0)


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
        assert note_parts(task.answer(prompt, generator), prompt.meta, 24)["salad"] == 0.0


def test_a_writer_of_full_skill_does_as_asked():
    task, generator = Notes(skill=(1.0, 1.0)), rng(2)
    for _ in range(50):
        prompt = task.request(generator, "train")
        found = note_parts(task.answer(prompt, generator), prompt.meta, 24)
        assert [found[part] for part in ("topics", "tone", "name", "ending")] == [1.0] * 4


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
