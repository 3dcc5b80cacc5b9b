"""Program rewards on literal texts."""

from itertools import combinations

import pytest

from evenhand.errors import UserError
from evenhand.rewards import verifiable
from evenhand.rewards.verifiable import common_subsequence, form, last_number, rouge_l, vader
from evenhand.seeding import rng
from evenhand.types import Completion, Group, Prompt


def values(reward, *texts, **meta):
    prompt = Prompt(content="p", meta=meta)
    return reward([Group(prompt=prompt, completions=tuple(Completion(content=t) for t in texts))])[0].values


def test_vader_knows_good_from_bad():
    good, bad, neutral = values(vader(), "I love this wonderful film.", "I hate this horrible film.", "The film is here.")
    assert good > 0.6
    assert bad < -0.6
    assert neutral == 0.0


def test_last_number_is_exact():
    reward = last_number()
    texts = ("6 * 7 = 42", "42 apples, 43 pears", "forty-two", "It is $42.00.", "#### 42")
    assert values(reward, *texts, answer="so it is\n#### 42") == (1, 0, 0, 1, 1)
    assert values(reward, "1,250", answer=1250) == (1,)
    assert values(last_number(tolerance=0.01), "3.14", "3.2", answer=3.1415) == (1, 0)


def test_a_missing_or_wordy_answer_field_is_named():
    with pytest.raises(UserError, match="'solution'"):
        values(last_number(), "4", solution="4")
    with pytest.raises(UserError, match="no number"):
        values(last_number(), "4", answer="four")


def test_form_matches_the_whole_answer():
    assert values(form(pattern=r"<a>.*</a>"), " <a>x\ny</a>\n", "<a>x</a> more", "") == (1, 0, 0)
    with pytest.raises(UserError, match="regular expression"):
        form(pattern="(")


def test_rouge_l_by_hand():
    # the example of Lin 2004, section 3: three of four words in order, then two of four
    reference = "Police killed the gunman."
    found = values(rouge_l(), "police kill the gunman", "the gunman kill police", "", reference=reference)
    assert found == pytest.approx((0.75, 0.5, 0.0))


def test_common_subsequence_against_enumeration():
    for trial in range(30):
        generator = rng("lcs", trial)
        a, b = (generator.integers(0, 3, int(generator.integers(0, 7))).tolist() for _ in range(2))

        def subsequences(sequence):
            return {
                tuple(sequence[i] for i in pick)
                for n in range(len(sequence) + 1)
                for pick in combinations(range(len(sequence)), n)
            }

        assert common_subsequence(a, b) == max(map(len, subsequences(a) & subsequences(b)))


def test_math_verify_is_optional():
    try:
        import math_verify  # noqa: F401
    except ImportError:
        from evenhand.rewards.verifiable import math_answer

        with pytest.raises(UserError, match="math-verify"):
            math_answer()
    else:
        from evenhand.rewards.verifiable import math_answer

        assert values(math_answer(), r"so $\boxed{\frac{2}{4}}$", r"$\boxed{0.6}$", answer=r"\frac{1}{2}") == (1, 0)


def test_a_number_of_thousands_of_digits_is_a_number():
    long = "9" * 5000
    assert values(last_number(), f"4, no, {long}", f"{long}.5", long, answer=long) == (1.0, 0.0, 1.0)
    assert values(last_number(), f"4, no, {long}", answer=4) == (0.0,)


def test_a_pattern_that_never_ends_is_said(monkeypatch):
    """`(a+)+b` tries every way to cut a run of a's: 2^n of them; the Python of `re` cannot be interrupted there."""
    monkeypatch.setattr(verifiable, "PATTERN_SECONDS", 0.05)
    with pytest.raises(UserError, match=r"'\(a\+\)\+b' takes more than 0.05 seconds on an answer of 4001 characters") as told:
        values(form(pattern="(a+)+b"), "a" * 4000 + "c")
    assert "repetitions inside of repetitions" in told.value.fix
