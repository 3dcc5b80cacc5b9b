"""A diagnosis for people: what was seen, why it matters, what to do; tokens coloured by whether they are trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from evenhand.data.template import Renderer
from evenhand.display import spelled_out
from evenhand.doctor.examine import Diagnosis, Result
from evenhand.doctor.registry import Finding, Severity
from evenhand.types import TokenGroup

STYLES = {Severity.FAIL: "bold red", Severity.WARN: "yellow", Severity.INFO: "cyan"}
LONGEST = 600
"""Tokens of a prompt or an answer that are shown in an example."""


def show(diagnosis: Diagnosis, console: Console, *, least: Severity = Severity.INFO) -> None:
    """Everything found that is at least as grave as `least`, by section, and one line of sum."""
    section = None
    grave = [s for s in Severity if list(Severity).index(s) <= list(Severity).index(least)]
    for result in diagnosis.results:
        findings = [f for f in result.findings if f.severity in grave]
        if not findings:
            continue
        if result.check.section != section and least is Severity.INFO:
            section = result.check.section
            console.print(Text(f"\n{section}", style="bold underline"))
        for finding, last in zip(findings, _last_with_its_words(result, findings), strict=True):
            _show(result, finding, diagnosis, console, advised=last)
    console.print(summary(diagnosis))


def summary(diagnosis: Diagnosis) -> Text:
    """How many checks were made, and how they ended."""
    worst = [r.worst() for r in diagnosis.results if not r.waived]
    counts = [(sum(w is s for w in worst), s) for s in (Severity.FAIL, Severity.WARN)]
    skipped = sum(bool(r.skipped) for r in diagnosis.results)
    waived = [r for r in diagnosis.results if r.waived and r.findings]
    text = Text(f"{len(diagnosis.results) - skipped} checks")
    for count, severity in counts:
        text.append(f", {count} {severity}", style=STYLES[severity] if count else "")
    text.append(f", {skipped} not applicable" if skipped else "")
    text.append(f", waived: {', '.join(r.check.id for r in waived)}" if waived else "")
    return text


def _last_with_its_words(result: Result, findings: Sequence[Finding]) -> list[bool]:
    """Whether no later finding has the same why and fix: what many splits share is said once, behind the last of them."""
    words = [None if f.severity is Severity.INFO else (f.why or result.check.why, f.fix or result.check.fix) for f in findings]
    return [said not in words[place + 1 :] for place, said in enumerate(words)]


def _show(result: Result, finding: Finding, diagnosis: Diagnosis, console: Console, *, advised: bool) -> None:
    """One finding; `advised`: with why it matters and what to do."""
    check = result.check
    head = Text.assemble(
        (f"{finding.severity:<4} ", STYLES[finding.severity]), (f"{check.id:<3} ", "bold"), spelled_out(finding.seen)
    )
    console.print(head, soft_wrap=True)
    lines: list[Any] = []
    for example in finding.examples:
        if isinstance(example, TokenGroup):
            lines += list(coloured(_cut(example), diagnosis.patient.renderer))
        else:
            lines.append(Text(spelled_out(example), style="dim"))
    if finding.severity is not Severity.INFO and advised:
        lines.append(Text.assemble(("why ", "italic"), finding.why or check.why))
        lines.append(Text.assemble(("fix ", "italic"), finding.fix or check.fix))
        if result.waived:
            lines.append(Text(f"waived: {result.waived}", style="magenta"))
    for line in lines:
        console.print(Padding(line, (0, 0, 0, 9)))


def coloured(tokens: TokenGroup, renderer: Renderer) -> Iterator[Text]:
    """The prompt once, then each answer with its score, a piece per token: green is learned, red is not, `¦` between tokens."""
    prompt = "¦".join(text for text, _ in pieces(tokens.prompt, renderer))
    yield Text.assemble(("prompt ", "bold"), (f"({_tokens(len(tokens.prompt))})\n", "dim"), (prompt, "dim"))
    for completion, score in zip(tokens.completions, tokens.group.scores, strict=True):
        learned = sum(completion.mask)
        cut = ", cut" if completion.truncated else ""
        scored = f"score {score:g}, " if score == score else ""
        head = f"{scored}{learned} of {_tokens(len(completion.ids))} learned{cut}\n"
        parts, at = [], 0
        for text, count in pieces(completion.ids, renderer):
            parts.append((text + "¦", "green" if all(completion.mask[at : at + count]) else "red"))
            at += count
        yield Text.assemble(("answer ", "bold"), (head, "dim"), *parts)


def pieces(ids: Sequence[int], renderer: Renderer) -> Iterator[tuple[str, int]]:
    """The text of every token with how many tokens it is: more than one where they share a character's bytes.

    Leading blanks are kept, special tokens spelled out, line ends shown, and what steers a terminal is made visible.
    """
    run: list[int] = []
    for place, token in enumerate(ids):
        run.append(token)
        text = renderer.piece(run)
        whole = "\ufffd" not in text or len(run) == 4 or place == len(ids) - 1  # no character has more than four bytes
        if whole:
            yield visible(text), len(run)
            run = []


def visible(text: str) -> str:
    """Text that can be printed: control characters as their pictures, a sign before every line end.

    >>> visible("a\\n\\x1b[31mb")
    'a⏎\\n␛[31mb'
    """
    signs: dict[int, int | str] = {
        **{i: 0x2400 + i for i in range(32)},
        127: 0x2421,
        10: "⏎\n",
        **dict.fromkeys(range(128, 160), "\ufffd"),
    }
    return spelled_out(text.translate(signs))


def _tokens(count: int) -> str:
    return f"{count} token{'s' if count != 1 else ''}"


def _cut(tokens: TokenGroup) -> TokenGroup:
    """The end of a long prompt and the beginning of long answers."""
    short = tuple(replace(c, ids=c.ids[:LONGEST], mask=c.mask[:LONGEST], behaviour_logp=None) for c in tokens.completions)
    return replace(tokens, prompt=tokens.prompt[-LONGEST:], completions=short)
