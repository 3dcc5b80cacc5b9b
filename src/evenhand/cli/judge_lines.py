"""What `evenhand judge` prints of a judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evenhand.judges import Judge


def side_lines(found: Mapping[str, Any], judge: Judge) -> list[str]:
    """Two sides compared: who wins by how much, and how the judge behaved."""
    from evenhand.cli.tables import equal_length_lines

    low, high = found["ci95"]
    lines = [
        f"{found['a']} wins {found['win_rate']:.1%} against {found['b']} (95% interval {low:.1%} to {high:.1%}, n = {found['n']})"
    ]
    if controlled := found.get("length_controlled"):
        lines += equal_length_lines(controlled)
    return [*lines, *behaviour_lines(found), *call_lines(judge)]


UNUSABLE = 0.2
"""The share of unusable verdicts, a person's missing labels among them, from which on they make the figures."""


def behaviour_lines(found: Mapping[str, Any]) -> list[str]:
    """Ties, contradictions, places, the self-test, and what it cost."""
    one_order = "judge: each pair was asked in one order: position bias cannot be measured on these verdicts"
    lines = [*([one_order] if found.get("one_order") else []), shares_line(found), *_votes(found)]
    if (found.get("invalid") or 0) > UNUSABLE:
        lines.append(
            "judge: a verdict that is not there counts one half: these figures lean to 50%, and their intervals are too narrow"
        )
    if test := found.get("self_test"):
        if test["passed"] and "members" in test:
            lines.append("self-test passed by every judge")
        elif test["passed"]:
            lines.append(
                f"self-test passed: identical answers {test['identical']:.2f}, a ruined answer loses {test['planted']:.1%}"
            )
        lines += [f"self-test: {test['note']}"] if test.get("note") else []
    if found.get("cost_usd"):  # a model on this machine costs no dollars, and its seconds stand below
        lines.append(f"cost of these judgements: ${found['cost_usd']:.4f}")
    return lines


def shares_line(found: Mapping[str, Any]) -> str:
    """How a judge of pairs behaved."""
    shares = {"ties": "ties", "invalid": "unusable", "consistency": "same verdict in both orders", "p_first": "prefers the first"}
    return "judge: " + ", ".join(f"{text} {found[key]:.1%}" for key, text in shares.items() if found.get(key) is not None)


def people_lines(found: Mapping[str, Any]) -> list[str]:
    """How far the judge agrees with those who labelled, beside how far they agree among themselves."""
    if "annotators" not in found:
        return []
    told = found["annotators"]
    lines = [
        f"  {row['a']} and {row['b']}: Cohen's kappa {coefficient(row)}"
        for row in told["with_judge"]["cohen"]
        if "judge" in (row["a"], row["b"])
    ]
    if told["people"] is not None:
        with_judge, people = told["with_judge"]["alpha"], told["people"]["alpha"]
        lines += [f"  Krippendorff's alpha of the annotators {coefficient(people)}, with the judge {coefficient(with_judge)}"]
    if "label_ties" in found:
        lines.append(f"  {found['label_ties']} pairs whose labels tie count in these coefficients alone")
    return lines


def agreement_lines(found: Mapping[str, Any]) -> list[str]:
    """Coefficients of agreement between raters, and what their labels were taken for."""
    how = {"nominal": "categories without an order", "ordinal": "in this order", "interval": "numbers with distances"}
    lines = [f"{found['items']} items, {len(found['raters'])} raters; labels {', '.join(found['labels'])}: {how[found['level']]}"]
    lines += [f"  {name}: {row['n']} rated" for name, row in found["raters"].items() if row["n"] < found["items"]]
    lines.append(f"Krippendorff's alpha {coefficient(found['alpha'])}, n = {found['alpha']['n']}")
    if len(found["raters"]) > 2:
        lines.append(f"Fleiss' kappa {coefficient(found['fleiss'])}, n = {found['fleiss']['n']} that all rated")
    lines += [f"{row['a']} and {row['b']}: Cohen's kappa {coefficient(row)}, n = {row['n']}" for row in found["cohen"]]
    return lines


def coefficient(found: Mapping[str, Any]) -> str:
    """A coefficient of agreement with its interval."""
    if found["value"] is None:
        return "not defined"
    ends = "" if found["ci95"] is None else f" ({found['ci95'][0]:.2f} to {found['ci95'][1]:.2f})"
    return f"{found['value']:.2f}{ends}"


def _votes(found: Mapping[str, Any]) -> list[str]:
    """What several judges, or one that was asked repeatedly, agree on."""
    if "repeats" in found:
        shares = f"sd {found['repeat_sd']:.2f} on one pair, {found['repeat_share']:.0%} of the variance over prompts"
        return [f"judge: asked {found['repeats']} times; it differs from itself by {shares}"]
    if "jury" not in found:
        return []
    jury = found["jury"]
    alpha, fleiss = coefficient(jury["alpha"]), coefficient(jury["fleiss"])
    lines = [f"jury: Krippendorff's alpha {alpha}, Fleiss' kappa {fleiss}, n = {jury['alpha']['n']}"]
    lines += [f"  {name}: {row['win_rate']:.1%}" for name, row in jury["members"].items() if row["win_rate"] is not None]
    return [*lines, *(f"  {row['a']} and {row['b']}: Cohen's kappa {coefficient(row)}" for row in jury["cohen"])]


def spent(judge: Judge) -> dict[str, Any]:
    """What the language models among the judges took, by their names in a jury; nothing for programs."""
    from evenhand.judges.jury import jurors

    found = {name: one.chat.spent() for name, one in jurors(judge).items() if hasattr(one, "chat")}
    return {"spent": found.get("", found)} if found else {}


def call_lines(judge: Judge) -> list[str]:
    """The same in words."""
    if not (told := spent(judge).get("spent")):
        return []
    rows = {"": told} if "asked" in told else told
    return [(f"{name}: " if name else "") + _call(row) for name, row in rows.items()]


def _call(row: Mapping[str, Any]) -> str:
    line = f"{row['asked']} asked, {row['known']} known already"
    if row["prompt_tokens"] is not None:
        line += f"; {row['prompt_tokens']} tokens read, {row['completion_tokens']} written"
    if row.get("seconds") is not None:
        line += f"; {row['seconds']:.1f} seconds on {row['device']}"
    return line
