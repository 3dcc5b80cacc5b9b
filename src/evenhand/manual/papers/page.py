"""The map as a page: docs/papers.md."""

from __future__ import annotations

from evenhand.manual.papers.all_roads import ALL_ROADS
from evenhand.manual.papers.course import COURSE
from evenhand.manual.papers.item import Paper, PaperItem, PlaceHere, PlaceKind
from evenhand.manual.papers.online_offline import ONLINE_OFFLINE
from evenhand.manual.papers.rlhf_workflow import RLHF_WORKFLOW
from evenhand.manual.papers.without_reward import WITHOUT_REWARD

DOCUMENTS: tuple[Paper, ...] = (ONLINE_OFFLINE, COURSE, WITHOUT_REWARD, RLHF_WORKFLOW, ALL_ROADS)

HEAD = """# From paper to command

Written by `python -m evenhand.manual` from a table in the code; tests keep it current and prove that every
method, key, command, file and function named here exists, and that no numbered item of the five documents is missing.

Each table, figure, equation, algorithm and theorem, in our words, and where it is here: a **method** of an arm, a **key** of an
experiment file, a **command**, an **example** that runs, a **page**, a function of the **code** (`evenhand.` in front), or a
**figure** of a run's report (`run.plot(NAME)`). *Not in the small* says what is not had, and why.
"""


def page() -> str:
    """The whole page."""
    return "\n\n".join([HEAD.rstrip(), _counts(), *map(_section, DOCUMENTS)]) + "\n"


def _counts() -> str:
    rows = ["| document | items | here | here in part | not in the small |", "|---|---|---|---|---|"]
    for document in DOCUMENTS:
        whole = sum(bool(i.places) and not i.missing for i in document.items)
        part = sum(bool(i.places) and bool(i.missing) for i in document.items)
        none = len(document.items) - whole - part
        rows.append(f"| [{document.title}](#{_anchor(document.title)}) | {len(document.items)} | {whole} | {part} | {none} |")
    return "\n".join(rows)


def _section(document: Paper) -> str:
    lines = [f"## {document.title}", "", document.about, "", "| item | what it holds | here |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {i.number} | {i.holds} | {_where(i)} |" for i in document.items)])


def _where(item: PaperItem) -> str:
    shown = ", ".join(map(_link, item.places))
    return "; ".join(filter(None, (shown, item.missing and f"*not in the small:* {item.missing}")))


def _link(place: PlaceHere) -> str:
    """One place as markdown.

    >>> from evenhand.manual.papers.item import command, method, key
    >>> _link(method("dpo")), _link(command("theory"))
    ('method [dpo](methods.md#dpo)', '`evenhand theory`')
    """
    name = place.name
    match place.kind:
        case PlaceKind.METHOD if name == "start":
            return "method [start](methods.md#arms-that-train-nothing)"
        case PlaceKind.METHOD:
            return f"method [{name}](methods.md#{name})"
        case PlaceKind.KEY:
            return f"[`{name}`](reference.md)"
        case PlaceKind.COMMAND:
            return f"`evenhand {name}`"
        case PlaceKind.EXAMPLE:
            return f"`examples/{name}`"
        case PlaceKind.PAGE:
            return f"[{name.removesuffix('.md')}]({name})"
        case PlaceKind.CODE:
            return f"`{name}`"
    return f"figure `{name}`"


def _anchor(title: str) -> str:
    """A heading's anchor, as the site makes it.

    >>> _anchor("RLHF Workflow: From Reward Modeling to Online RLHF")
    'rlhf-workflow-from-reward-modeling-to-online-rlhf'
    """
    return "".join(c for c in title.lower() if c.isalnum() or c in " -").replace(" ", "-")
