"""A judge is tested before it is believed: the same answer twice, the same pair swapped, an answer that must lose."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from evenhand.judges.agreement import account
from evenhand.judges.llm import LLMJudge
from evenhand.judges.verdict import Comparison, Judge, Progress
from evenhand.seeding import rng
from evenhand.stats.text import words
from evenhand.types import Completion, Prompt

_log = logging.getLogger(__name__)
PLANTED_FLOOR = 0.7
"""A judge that prefers a real answer to a ruined one less often than this cannot be trusted with finer differences."""
IDENTICAL_BAND = 0.1


def self_test(judge: Judge, answers: Sequence[tuple[Prompt, Completion]], progress: Progress | None = None) -> dict[str, Any]:
    """What a judge makes of pairs whose verdict is known, from real prompts and answers.

    `identical`: mean outcome of an answer against the same answer with one blank more at its end (so that it is really
    asked): 1/2 by an even-handed judge. `planted`: share won by the answer against its own words in random order, and against
    the answer to another prompt. `consistency` as in `account`, over the planted pairs (a judge that must choose cannot be
    consistent about the same answer twice); `p_first` and `invalid` over all. `passed` says whether
    identical is within 0.1 of 1/2 and planted is at least 0.7; `n` counts prompts. A judge that is asked in one
    order is tested in both. Needs two prompts with an answer.
    """
    kept = [(p, c) for p, c in answers if len(words(c.text)) >= 2]
    if len(kept) < 2:
        return {"n": len(kept), "passed": None, "note": "too few answers of two words or more to test the judge with"}
    asked = judge.in_both_orders() if isinstance(judge, LLMJudge) else judge
    same = [Comparison(prompt=p, a=c, b=Completion(content=f"{c.text} ")) for p, c in kept]
    planted = [Comparison(prompt=p, a=c, b=Completion(content=bad)) for p, c, bad in _ruined(kept)]
    verdicts = asked([*same, *planted], progress)
    identical = sum(v.outcome for v in verdicts[: len(same)]) / len(same)
    won = sum(v.outcome for v in verdicts[len(same) :]) / len(planted)
    behaviour = account(verdicts) | {"consistency": account(verdicts[len(same) :]).get("consistency")}
    passed = abs(identical - 0.5) <= IDENTICAL_BAND and won >= PLANTED_FLOOR
    if not passed:
        _log.warning("the judge failed its self-test: identical answers %.2f, planted bad answers lose in %.2f", identical, won)
    shown = {k: behaviour[k] for k in ("consistency", "p_first", "invalid") if behaviour.get(k) is not None}
    return {"n": len(kept), "identical": identical, "planted": won, "passed": passed, **shown}


def _ruined(kept: Sequence[tuple[Prompt, Completion]]) -> list[tuple[Prompt, Completion, str]]:
    """Each answer beside its own words shuffled and beside another prompt's answer; pairs that came out equal are left out."""
    rows = []
    for index, (prompt, completion) in enumerate(kept):
        rows.append((prompt, completion, shuffled(completion.text, prompt.id)))
        rows.append((prompt, completion, kept[(index + 1) % len(kept)][1].text))
    return [(p, c, bad) for p, c, bad in rows if bad != c.text]


def shuffled(text: str, key: str) -> str:
    """The words of a text in an order that depends on `key` alone.

    >>> sorted(shuffled("a b c d", "x").split()), shuffled("a b c d", "x") == shuffled("a b c d", "x")
    (['a', 'b', 'c', 'd'], True)
    """
    parts = text.split()
    return " ".join(parts[i] for i in rng("shuffled words", key).permutation(len(parts)))
