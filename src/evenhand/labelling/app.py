"""The page that people label on, and what it asks of the session behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import jinja2
from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse
from pydantic import BaseModel, ConfigDict, StringConstraints
from pydantic import Field as Checked

from evenhand.labelling.session import LabellingSession, LabellingTask, Stale
from evenhand.labelling.write import agreement
from evenhand.report.style import css_variables
from evenhand.report.svg import FONT
from evenhand.serve.guard import content_policy
from evenhand.types import Content, Message

_TEMPLATES = Path(__file__).parent / "templates"
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=60, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Person(BaseModel):
    """Who asks."""

    model_config = ConfigDict(extra="forbid", strict=True)
    annotator: Name


class Said(Person):
    """One answer: of which item, as shown in which order, what."""

    item: str = Checked(max_length=64)
    answers: list[Annotated[str, StringConstraints(max_length=64)]] = Checked(max_length=64)
    label: str = Checked(max_length=16)
    values: list[int] = Checked(default_factory=list, max_length=64)
    reason: str = Checked(default="", max_length=4000)
    seconds: float = Checked(default=0.0, ge=0, le=86_400, allow_inf_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What the page says beside the items: a title, the guidelines, and `others` who judged the same (see `agreement`)."""

    title: str
    guidelines: str = ""
    others: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)


def assets() -> tuple[str, str]:
    """Style and script of the page."""
    light, dark = css_variables("light"), css_variables("dark")
    variables = f":root{{--sans:{FONT};{light}}}@media (prefers-color-scheme:dark){{:root{{{dark}}}}}"
    style, script = ((_TEMPLATES / f"label.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    return variables + "\n" + style, script


def policy() -> str:
    return content_policy(assets()[1])


def build(session: LabellingSession, page: Page) -> FastAPI:
    """The application; it stands behind `evenhand.serve.guard.Guard`."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    html = _html(session, page)

    @app.get("/", response_class=HTMLResponse)
    def show() -> str:
        return html

    @app.post("/next")
    def ask(person: Person) -> dict[str, Any]:
        return _asked(session, person.annotator)

    @app.post("/answer")
    def keep(said: Said) -> dict[str, Any]:
        try:
            session.answer(
                said.annotator, said.item, said.answers, said.label, said.values, reason=said.reason, seconds=said.seconds
            )
        except Stale:
            return {**_asked(session, said.annotator), "note": "That was answered already, in another window; here is the next."}
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        return _asked(session, said.annotator)

    @app.post("/undo")
    def take_back(person: Person) -> dict[str, Any]:
        undone = session.undo(person.annotator)
        note = "There is nothing to take back." if undone is None else f"Taken back: {undone.label.replace('_', ' ')}."
        return {**_asked(session, person.annotator), "note": note}

    @app.get("/agreement")
    def agree() -> dict[str, Any]:
        return agreement(list(session.items.values()), session.labels(), page.others)

    return app


def _html(session: LabellingSession, page: Page) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style, script = assets()
    template = environment.get_template("label.html.j2")
    return template.render(page=page, form=session.form.value, items=len(session.items), style=style, script=script)


def _asked(session: LabellingSession, annotator: str) -> dict[str, Any]:
    """The next task, and how far this person is."""
    task, standing = session.next(annotator), session.standing(annotator)
    far = {"done": standing.done, "left": standing.left, "seconds": standing.seconds}
    return {"progress": far, "task": None if task is None else _shown(task)}


def _shown(task: LabellingTask) -> dict[str, Any]:
    group = task.item.group
    return {
        "item": task.item.name,
        "answers": list(task.answers),
        "prompt": _turns(group.prompt.content),
        "texts": [group.completions[i].text for i in task.shown],
    }


def _turns(content: Content) -> list[dict[str, str]]:
    """A prompt turn by turn; plain text has no role."""
    turns: Sequence[Message] = (Message("", content),) if isinstance(content, str) else content
    return [{"role": m.role, "text": m.text} for m in turns]
