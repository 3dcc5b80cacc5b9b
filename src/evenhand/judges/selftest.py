"""A judge is tested before it is believed: the same answer twice, the same pair swapped, an answer that must lose."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.errors import UserError
from evenhand.judges.agreement import account
from evenhand.judges.human import HumanJudge
from evenhand.judges.jury import jurors, scores, single
from evenhand.judges.llm import LLMJudge
from evenhand.judges.reward import RewardJudge
from evenhand.judges.verdict import ASKED, Comparison, Judge, Progress, Status, Verdict, said_twice
from evenhand.seeding import rng
from evenhand.stats.text import words
from evenhand.types import Completion, Prompt

_log = logging.getLogger(__name__)
PLANTED_FLOOR = 0.7
"""A judge that prefers a real answer to a ruined one less often than this cannot be trusted with finer differences."""
IDENTICAL_BAND = 0.1
MOODY = "the very same text gets different scores"
FEWEST = 4
"""Pairs that must agree before a preference for a place is called one."""
CONTRADICTIONS = 0.3
"""A judge that contradicts itself on more of the pairs judges places, or by chance."""
NO_SENSE = "it does not tell a ruined answer from a real one: right for a judge of form (length, tone), wrong for one of content"


def self_test(judge: Judge, answers: Sequence[tuple[Prompt, Completion]], progress: Progress | None = None) -> dict[str, Any]:
    """What a judge makes of pairs whose verdict is known, from real prompts and answers.

    `identical`: mean outcome of an answer against itself: 1/2 by an even-handed judge. A judge that is asked about pairs sees
    one blank more at the end of one of them, so that it is really asked; a judge that scores sees the very same texts twice, and
    must give the very same scores. `planted`: share won by the answer against its own words in random order, and against
    the answer to another prompt. `consistency` as in `account`, over the planted pairs (a judge that must choose cannot be
    consistent about the same answer twice); `p_first` and `invalid` over all. `passed` says whether identical is within 0.1 of
    1/2 and planted is at least 0.7; a judge that scores passes when it repeats itself, tells answers apart, and does not prefer
    shuffled words (at most 0.7): length or tone are no worse for them, and `note` says so. `failed` says what went wrong, and
    `broken` that no judge of anything behaves so: unreadable, of one place, by chance. `n` counts prompts. A judge that is asked
    in one order is tested in both, one that is asked repeatedly is tested once. Of a jury every member is tested, by name in
    `members`, and it passes when all of them do. Needs two prompts with an answer.
    """
    kept = [(p, c) for p, c in answers if len(words(c.text)) >= 2]
    if len(kept) < 2:
        return {"n": len(kept), "passed": None, "note": "too few answers of two words or more to test the judge with"}
    found = {name: _tested(member, kept, progress) for name, member in jurors(judge).items()}
    if list(found) == [""]:
        return found[""]
    failed = {name: f"{name}: {test['failed']}" for name, test in found.items() if test.get("failed")}
    whole: dict[str, Any] = {"n": len(kept), "passed": not failed, "members": found}
    if failed:
        whole["failed"] = "; ".join(failed.values())
    return whole | ({"broken": True} if any(found[name].get("broken") for name in failed) else {})


def _tested(judge: Judge, kept: Sequence[tuple[Prompt, Completion]], progress: Progress | None) -> dict[str, Any]:
    if isinstance(judge, HumanJudge):
        return {"n": len(kept), "passed": None, "note": "people are not asked about ruined answers"}
    judge = single(judge)
    asked = judge.in_both_orders() if isinstance(judge, LLMJudge) else judge
    scored = scores(judge)
    same = [Comparison(prompt=p, a=c, b=c if scored else Completion(content=f"{c.text} ")) for p, c in kept]
    ruined = _ruined(kept)
    planted = [Comparison(prompt=p, a=c, b=Completion(content=bad)) for p, c, bad, _ in ruined]
    if isinstance(judge, RewardJudge):
        on_same, on_planted = judge.repeated(same), judge(planted, progress)
    else:
        verdicts = asked([*same, *planted], progress)
        on_same, on_planted = verdicts[: len(same)], verdicts[len(same) :]
    identical = sum(v.outcome for v in on_same) / len(same)
    won = sum(v.outcome for v in on_planted) / len(planted)
    behaviour = account([*on_same, *on_planted]) | {"consistency": account(on_planted).get("consistency")}
    worthless = broken(on_planted)
    if not (worthless or scored or isinstance(judge, LLMJudge)):
        worthless = _contradicts(asked, planted, on_planted)
    if scored:
        shuffles = [v.outcome for v, (*_, own) in zip(on_planted, ruined, strict=True) if own]
        worthless = worthless or (MOODY if any(v.outcome != 0.5 for v in on_same) else "")
        failed = worthless or _failed_scores(on_planted, shuffles)
    else:
        failed = worthless or _failed_pairs(on_same, on_planted, identical, won)
    if failed:
        _log.warning("the judge failed its self-test: %s", failed)
    shown = {k: behaviour[k] for k in ("consistency", "p_first", "invalid") if behaviour.get(k) is not None}
    found = {"n": len(kept), "identical": identical, "planted": won, "passed": not failed, **shown}
    if failed:
        return found | {"failed": failed} | ({"broken": True} if worthless else {})
    return found | ({"note": NO_SENSE} if won < PLANTED_FLOOR else {})


def _contradicts(judge: Judge, planted: Sequence[Comparison], verdicts: Sequence[Verdict]) -> str:
    """Whether a judge of the user's says the opposite when the two answers change places: by place, or by chance."""
    turned = judge([Comparison(prompt=c.prompt, a=c.b, b=c.a) for c in planted])
    other = [abs(v.outcome + w.outcome - 1) > 0.5 for v, w in zip(verdicts, turned, strict=True)]
    if len(other) < FEWEST or sum(other) / len(other) <= CONTRADICTIONS:
        return ""
    return f"it contradicts itself on {sum(other)} of {len(other)} pairs when the two answers change places"


def broken(verdicts: Sequence[Verdict]) -> str:
    """What makes verdicts worthless whatever they say: none could be read, or all name the same place. Empty where neither.

    >>> from evenhand.judges.verdict import Order, Status
    >>> unread = Order(a_first=True, outcome=0.5, status=Status.INVALID, why="no verdict in its words")
    >>> broken([Verdict(outcome=0.5, orders=(unread,))])
    'not one of its 1 verdicts could be read (no verdict in its words)'
    """
    orders = [o for v in verdicts for o in v.orders if o.status in ASKED]
    if orders and all(o.status is Status.INVALID for o in orders):
        reasons = Counter(o.why for o in orders if o.why).most_common(1)
        return f"not one of its {len(orders)} verdicts could be read" + (f" ({reasons[0][0]})" if reasons else "")
    both = said_twice(verdicts)
    firsts = [o.outcome if o.a_first else 1 - o.outcome for pair in both for o in pair]
    for place, said in (("first", 1.0), ("second", 0.0)):
        if len(both) >= FEWEST and all(x == said for x in firsts):
            return f"it prefers the answer shown {place} in both orders, every time ({len(both)} pairs)"
    return ""


def refuse_broken(verdicts: Sequence[Verdict], name: str) -> None:
    """Raises UserError, before any number is shown, for verdicts that are `broken`."""
    if what := broken(verdicts):
        raise UserError(
            f"the judge is broken: {what}", where=name, why="a rate made of these verdicts says nothing about the answers",
            fix="use another judge, another template, or more `max_tokens`; the verdicts are kept to be read",
        )  # fmt: skip


def refuse_failed(test: Mapping[str, Any], name: str, *, way: str = "with `--self-test 0` it judges all the same") -> None:
    """Raises UserError for a judge that failed its self-test; `way` says how it is asked for all the same."""
    if test.get("passed") is False:
        raise UserError(
            f"the judge failed its self-test: {test['failed']}", where=name,
            why="a judge that cannot tell a ruined answer from a real one cannot tell finer differences",
            fix=f"use another judge or template; {way}",
        )  # fmt: skip


def _failed_pairs(same: Sequence[Verdict], planted: Sequence[Verdict], identical: float, won: float) -> str:
    if abs(identical - 0.5) <= IDENTICAL_BAND and won >= PLANTED_FLOOR:
        return ""
    found = account([*same, *planted])
    words = f"identical answers {identical:.2f} (0.50 is fair), a ruined answer loses in {won:.0%} (50% is chance)"
    return words + (f", {found['invalid']:.0%} of the pairs unreadable" if found["invalid"] else "")


def _failed_scores(planted: Sequence[Verdict], shuffles: Sequence[float]) -> str:
    if all(v.outcome == 0.5 for v in planted):
        return "it gives every answer the same score"
    won = sum(shuffles) / len(shuffles) if shuffles else 0.5
    if won < 1 - PLANTED_FLOOR:
        return f"it prefers an answer's shuffled words in {1 - won:.0%}"
    return ""


def _ruined(kept: Sequence[tuple[Prompt, Completion]]) -> list[tuple[Prompt, Completion, str, bool]]:
    """Each answer beside its own words shuffled (True) and beside another prompt's answer; equal texts are left out."""
    rows = []
    for index, (prompt, completion) in enumerate(kept):
        rows.append((prompt, completion, shuffled(completion.text, prompt.id), True))
        rows.append((prompt, completion, kept[(index + 1) % len(kept)][1].text, False))
    return [row for row in rows if row[2] != row[1].text]


def shuffled(text: str, key: str) -> str:
    """The words of a text in an order that depends on `key` alone.

    >>> sorted(shuffled("a b c d", "x").split()), shuffled("a b c d", "x") == shuffled("a b c d", "x")
    (['a', 'b', 'c', 'd'], True)
    """
    parts = text.split()
    return " ".join(parts[i] for i in rng("shuffled words", key).permutation(len(parts)))
