"""A user's own code: files and modules that an experiment names under `plugins:`, and what installed packages bring.

They are found and fingerprinted without being run, then imported, in the command and in every worker alike; what they put into
the registries is theirs. Only stages that use a name of theirs have their source in the key.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import logging
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from evenhand.errors import UserError
from evenhand.registry import REGISTRIES, forget, parts
from evenhand.store.fingerprint import digest, file_fingerprint

GROUP = "evenhand.plugins"
"""The entry point under which an installed package names its module."""
RELATIVE = "a path is relative to the file that names it; on the command line, to the working directory"
PATIENCE, LIMIT = 3.0, 120.0
"""Seconds before a plugin's import is mentioned, and before it is given up."""
_active: dict[str, Plugin] = {}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plugin:
    """A file or module of the user's: its name as given, what is imported, every file that it may consist of, and their digest.

    `folder` is where a file's or module's neighbours are looked for.
    """

    name: str
    module: str
    folder: Path
    files: tuple[Path, ...]
    digest: str

    @property
    def source(self) -> Path:
        return self.files[0]


def installed() -> list[str]:
    """The modules that installed packages bring, by their entry points."""
    return sorted({point.module for point in entry_points(group=GROUP)})


def resolve(names: Iterable[str], folder: Path) -> tuple[Plugin, ...]:
    """The plugins of those names, and of installed packages, not imported yet.

    A name that ends in `.py` is a file relative to `folder`, any other a module that is there or installed.

    Raises: UserError where nothing is found, where two have one name, and for a file that is no Python.
    """
    found: dict[str, Plugin] = {}
    for name in dict.fromkeys([*names, *installed()]):
        plugin = locate(name, folder)
        if plugin.module in found:
            other = found[plugin.module].source
            raise UserError(f"{plugin.source} and {other} have one name", where="plugins", fix="rename one of the files")
        found[plugin.module] = plugin
    return tuple(found.values())


def locate(name: str, folder: Path, *, where: str = "plugins") -> Plugin:
    """The user's file or module of that name, not imported: the one rule for all code that an experiment names.

    A name that ends in `.py` is a file relative to `folder` (of the file that names it), any other a module that is there or
    installed. Its neighbours that it imports belong to it.

    Raises: UserError with the place that was looked at, and for a file that is no Python.
    """
    return _file(name, folder, where) if name.endswith(".py") else _module(name, folder, where)


def beside(folder: Path) -> None:
    """Lets code find its neighbours in `folder`: behind everything installed, which a neighbour must not hide."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def activate(plugins: Sequence[Plugin], *, patience: float = PATIENCE, limit: float = LIMIT) -> None:
    """Imports these plugins and takes others out of the registries: the command and every worker begin with this.

    Raises: UserError with file and line for one that cannot be imported, takes too long, or was changed since it was resolved.
    """
    for plugin in [p for p in _active.values() if p not in plugins]:
        _unload(plugin)
    for plugin in plugins:
        if plugin.module not in _active:
            if _digest(plugin.files) != plugin.digest:
                raise UserError(
                    "the plugin was changed while the run went on", where=str(plugin.source),
                    why="what was made before and after would not be the same", fix="give the same command again",
                )  # fmt: skip
            _load(plugin, patience, limit)
            _active[plugin.module] = plugin


def active() -> tuple[Plugin, ...]:
    """The plugins that are imported now."""
    return tuple(_active.values())


def owner(source: Path) -> Plugin | None:
    """The active plugin that a file belongs to; None for evenhand's own and for what is merely installed."""
    source = source.resolve()
    return next((p for p in _active.values() if source in p.files), None)


def used(value: Any) -> dict[str, str]:
    """Module and digest of every active plugin that `value` (JSON, dataclasses, functions) names or is made of, at any depth."""
    return _digests(_code(value)) if _active else {}


def bringing(kind: str) -> dict[str, str]:
    """Module and digest of every active plugin that registered something of this kind."""
    return _digests(entry.source for entry in REGISTRIES[kind].entries.values()) if kind in REGISTRIES else {}


def _digests(sources: Iterable[Path]) -> dict[str, str]:
    owners = filter(None, map(owner, sources))
    return {plugin.module: plugin.digest for plugin in owners}


def _code(value: Any) -> Iterator[Path]:
    """The files in which stand what a value names (under a registry's own key, as `kind: length` names a reward) and its type."""
    for key, part in parts(value):
        file = getattr(sys.modules.get(getattr(part, "__module__", None) or ""), "__file__", None)
        if file is not None:
            yield Path(file)
        if isinstance(part, str):
            entries = (r.entries.get(part) for r in REGISTRIES.values() if key in r.named_by)
            yield from (entry.source for entry in entries if entry is not None)


# --- finding ---------------------------------------------------------------------------------------------------------


def _file(name: str, folder: Path, where: str) -> Plugin:
    path = (folder / Path(name).expanduser()).resolve()
    if not path.is_file():
        raise UserError(f"there is no file {path}", where=where, fix=RELATIVE)
    return _plugin(name, path.stem, path.parent, [path])


def _module(name: str, folder: Path, where: str) -> Plugin:
    """Found without running anything, its package neither: of a package every file belongs to it."""
    top, *rest = name.split(".")
    spec = PathFinder.find_spec(top, [*sys.path, str(folder.resolve())]) or _elsewhere(top)
    roots = [Path(p).resolve() for p in (spec.submodule_search_locations or ())] if spec else []
    if spec and not rest and not roots and spec.origin:
        return _plugin(name, name, folder.resolve(), [Path(spec.origin).resolve()])
    for root in roots:
        path = root.joinpath(*rest)
        for own in ([path.with_suffix(".py")] if rest else []) + [path / "__init__.py"]:
            if own.is_file():
                return _plugin(name, name, folder.resolve(), [own, *sorted(set(root.rglob("*.py")) - {own})])
    why = f"it is looked for among what is installed and in {folder.resolve()}"
    raise UserError(f"there is no module '{name}'", where=where, why=why, fix=f"install it, or name a file, NAME.py; {RELATIVE}")


def _elsewhere(top: str) -> ModuleSpec | None:
    """What finders other than the path's know: packages installed in place for development."""
    try:
        return importlib.util.find_spec(top)
    except (ImportError, ValueError):  # a module without a spec, as the one that was started
        return None


def _plugin(name: str, module: str, folder: Path, files: list[Path]) -> Plugin:
    if len(files) == 1:
        files += _neighbours(files[0], set(files))
    return Plugin(name, module, folder, tuple(files), _digest(files))


def _neighbours(file: Path, known: set[Path]) -> list[Path]:
    """The files beside `file` that it imports, and those that they import."""
    try:
        imported = _imported(file.read_bytes(), str(file))
    except SyntaxError as error:
        raise UserError(f"this is no Python: {error.msg}", where=f"{file}:{error.lineno}", fix="mend this line") from None
    found: list[Path] = []
    for top in (file.parent / name for name in imported):
        beside = [top.with_suffix(".py")] if top.with_suffix(".py").is_file() else sorted(top.rglob("*.py"))
        for path in (p for p in beside if p not in known):
            known.add(path)
            found += [path, *_neighbours(path, known)]
    return found


@lru_cache  # every stage of a plan asks what the same file imports
def _imported(source: bytes, file: str) -> tuple[str, ...]:
    """The first parts of the names that `file`, of these bytes, imports, in its order."""
    names: list[str] = []
    for node in ast.walk(ast.parse(source, file)):
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
    return tuple(dict.fromkeys(name.partition(".")[0] for name in names if name))


def _digest(files: Sequence[Path]) -> str:
    """Of every file's bytes; where the files are is not part of it."""
    return digest([[path.name, file_fingerprint(path)] for path in files])


# --- importing -------------------------------------------------------------------------------------------------------


def _load(plugin: Plugin, patience: float, limit: float) -> None:
    """In a thread of its own, so that one that never ends can be given up and its place be named."""
    failures: list[BaseException] = []

    def body() -> None:
        try:
            _import(plugin)
        except BaseException as error:  # whatever a user's file may raise, `exit()` included
            failures.append(error)

    thread = threading.Thread(target=body, daemon=True, name=f"loading plugin {plugin.name}")
    thread.start()
    thread.join(patience)
    if thread.is_alive():
        _log.warning("loading plugin %s ...", plugin.name)
        thread.join(limit - patience)
    if thread.is_alive():
        frame = sys._current_frames().get(thread.ident or 0)
        _unload(plugin)
        raise UserError(
            f"the plugin is not loaded after {limit:g} seconds", where=_where(plugin, traceback.extract_stack(frame)),
            why="it is imported by the command and by every worker", fix="do slow work inside functions, not while importing",
        )  # fmt: skip
    for error in failures:
        _unload(plugin)
        if isinstance(error, UserError):
            raise error
        what = f"the plugin cannot be loaded: {type(error).__name__}: {error}"
        fix = "install what it imports" if isinstance(error, ImportError) else f"try: python {plugin.source}"
        place = f"{error.filename}:{error.lineno}" if isinstance(error, SyntaxError) else ""
        where = place or _where(plugin, traceback.extract_tb(error.__traceback__))
        raise UserError(what, where=where, fix=fix) from error


def _where(plugin: Plugin, frames: Iterable[traceback.FrameSummary]) -> str:
    """File and line of the innermost frame that is in the plugin."""
    own = [frame for frame in frames if Path(frame.filename).resolve() in plugin.files]
    return f"{own[-1].filename}:{own[-1].lineno}" if own else str(plugin.source)


def _import(plugin: Plugin) -> None:
    beside(plugin.folder)
    importlib.invalidate_caches()
    if not plugin.name.endswith(".py"):
        importlib.import_module(plugin.module)
        return
    if (other := sys.modules.get(plugin.module)) is not None:
        why = f"a module of that name is imported already, from {getattr(other, '__file__', 'Python itself')}"
        raise UserError(f"'{plugin.name}' cannot be imported", where=str(plugin.source), why=why, fix="rename the file")
    spec = importlib.util.spec_from_file_location(plugin.module, plugin.source)
    assert spec is not None, "a .py file has a loader"
    module = sys.modules[plugin.module] = importlib.util.module_from_spec(spec)
    exec(compile(plugin.source.read_bytes(), str(plugin.source), "exec"), vars(module))  # never from a cache of bytecode


def _unload(plugin: Plugin) -> None:
    _active.pop(plugin.module, None)
    forget(plugin.files)
    for name, module in list(sys.modules.items()):
        if (file := getattr(module, "__file__", None)) and Path(file).resolve() in plugin.files:
            del sys.modules[name]
