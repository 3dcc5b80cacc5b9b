"""An experiment file, read and checked; the code that it names is imported first: it may bring what the file names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from evenhand import plugins
from evenhand.configfile.document import COMMAND_LINE, Document, KeyPath
from evenhand.configfile.layers import Change, as_it_stands
from evenhand.configfile.schema import Loaded, load
from evenhand.errors import UserError
from evenhand.judges.registry import JUDGES
from evenhand.spec import checks
from evenhand.spec.aliases import answered, renamed, todays
from evenhand.spec.experiment import Experiment


def read_experiment(
    source: str | Path | Mapping[str, Any],
    overrides: Iterable[str] = (),
    *,
    find: Callable[[str, Path], Path] | None = None,
    before: Change = as_it_stands,
) -> Loaded[Experiment]:
    """The experiment of a file, text or plain data; see `configfile.schema.load`. Raises: every fault together.

    A key of another tool's is answered with ours; see `aliases`.
    """

    def settled(document: Document) -> Document:
        return before(renamed(document))  # a mapping that was given on the command line may hold former keys too

    try:
        return load(
            Experiment, source, overrides, find=find, each=renamed, todays=todays, before=settled, problems=checks.problems
        )
    except UserError as error:
        raise answered(error) from None


def with_user_code(document: Document) -> Document:
    """Imports what stands under `plugins:` and in installed packages, and finds the functions that rewards name.

    Files and modules are looked for beside the experiment file that names them (with `extends`, the one in which the key stands),
    on the command line and in plain data in the working directory. The document then names files by their full paths.
    """
    document = with_plugins(document)
    return Document(_with_functions(document.data, (), document), document.places)


def _with_functions(value: Any, path: KeyPath, document: Document) -> Any:
    """The functions of `{kind: function, path: FILE.py:NAME}`, wherever such a mapping stands, by their files' full paths."""
    if isinstance(value, Mapping):
        inside = {key: _with_functions(item, (*path, key), document) for key, item in value.items()}
        if value.get("kind") == "function" and isinstance(value.get("path"), str):
            inside["path"] = _function(value["path"], (*path, "path"), document)
        return inside
    if isinstance(value, list):
        return [_with_functions(item, (*path, number), document) for number, item in enumerate(value)]
    return value


def _function(text: str, path: KeyPath, document: Document) -> str:
    source, _, name = text.rpartition(":")
    if not source or not name:
        return text  # the check says so
    code = plugins.locate(source, _folder(document.place(path)), where=document.where(path))
    plugins.beside(code.folder)
    return f"{code.source}:{name}" if source.endswith(".py") else text


def with_plugins(document: Document) -> Document:
    """The same for `plugins:` and installed packages alone; judges of theirs get the form that the schema has for all."""
    names = document.data.get("plugins") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return document  # the check says so
    try:
        found = plugins.resolve(names, _folder(document.place(("plugins",))))
    except UserError as error:
        raise (error.placed(document.where(("plugins",))) if error.where == "plugins" else error) from None
    plugins.activate(found)
    full = [str(p.source) if p.name.endswith(".py") else p.name for p in found if p.name in names]
    data = {**document.data, "plugins": full} if names else document.data
    return Document({**data, "judge": own_judge(data["judge"])} if "judge" in data else data, document.places)


def own_judge(given: Any) -> Any:
    """`{kind: NAME, ...}` of a registered judge, by itself or in a jury, in the form that the schema has for all of them."""
    if isinstance(given, Mapping) and given.get("kind") == "jury" and isinstance(given.get("judges"), Mapping):
        return {**given, "judges": {name: own_judge(member) for name, member in given["judges"].items()}}
    if not isinstance(given, Mapping) or given.get("kind") not in JUDGES:
        return given
    rest = {key: value for key, value in given.items() if key not in ("kind", "self_test")}
    shared = {key: given[key] for key in ("self_test",) if key in given}
    return {"kind": "own", "judge": given["kind"], "settings": rest, **shared}


def _folder(place: str) -> Path:
    """The folder of the file that a place ("file:line") is in."""
    file = Path(place.rpartition(":")[0])
    return file.parent if place and place != COMMAND_LINE and file.is_file() else Path()
