"""`evenhand store`: what lies in a store, whether it is what was made, and what of it may go."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from evenhand.cli.terminal import FAILED, wide_console
from evenhand.display import in_bytes
from evenhand.errors import UserError
from evenhand.store.prune import Candidate, candidates, remove
from evenhand.store.store import Store
from evenhand.store.survey import State, StoredArtifact, Survey, inodes, is_store, size_of, survey

app = typer.Typer(name="store", help="What runs share: list it, verify it, and remove what nobody uses.", no_args_is_help=True)
Where = Annotated[
    Path | None, typer.Argument(metavar="[DIR]", help="A run directory or a store (default: the one of EVENHAND_STORE).")
]


@app.command(name="list")
def list_(where: Where = None) -> None:
    """Every artifact with its state, size and users; what the runs share, and the disk it takes."""
    store, run = _opened(where)
    found = survey(store)
    console = wide_console()
    registered = any(known.folder == run for known in found.runs)
    entries = [e for e in found.entries if not registered or run in e.runs]
    console.print(_entries_table(entries))
    for line in [*_summary(found), *_run_lines(found, run)]:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


@app.command()
def verify(where: Where = None) -> None:
    """Read every finished artifact and compare it with what was made. Exit code 3 where one is damaged."""
    from evenhand.display import shown

    store, _ = _opened(where)
    finished = [e for e in survey(store).entries if e.state is State.FINISHED]
    plain = [e for e in finished if store.unsealed(e.key)]
    damaged = {e.key: why for e in finished if (why := store.damage(e.key))}
    for key, why in damaged.items():
        print(shown(store.damaged_words(key, why)))
    print(f"{len(finished) - len(damaged) - len(plain)} of {len(finished)} finished artifacts are what was made", end="")
    print(f"; {len(plain)} were made before artifacts had digests: nobody can say" if plain else "")
    if damaged:
        print(f"{len(damaged)} damaged: the next `evenhand run` that needs one makes it again")
        raise typer.Exit(FAILED)


@app.command()
def prune(
    where: Where = None,
    unused: Annotated[bool, typer.Option("--unused", help="Also finished artifacts that no known run uses.")] = False,
    half: Annotated[bool, typer.Option("--half", help="Also half-finished ones that a run wants: they begin anew.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without, only show it.")] = False,
) -> None:
    """Leftovers of kills, half-finished artifacts that no run wants, locks that nobody holds: show them, or remove them."""
    store, _ = _opened(where)
    found = survey(store)
    if unused and not found.runs:
        raise UserError(
            "no run is known to use this store", where=str(store.root), why="every artifact would count as unused",
            fix="give the command of each run once more (`evenhand run ...`), or remove the folder by hand",
        )  # fmt: skip
    chosen = candidates(found, unused=unused, half=half)
    if not chosen:
        print("There is nothing to remove.")
        return
    left = remove(found, chosen) if yes else []
    wide_console().print(_candidates_table(chosen))
    freed = in_bytes(sum(c.size for c in chosen if c not in left))
    print(f"Removed; {freed} are free again." if yes else f"Nothing was removed: with --yes, {freed} would be free again.")
    if left:
        print(f"{len(left)} could not go: a process has begun to write there.")


def _opened(where: Path | None) -> tuple[Store, Path | None]:
    """The store that is meant, and the run directory if one was named."""
    if where is None:
        if not (given := os.environ.get("EVENHAND_STORE")):
            raise UserError("which store?", fix="name a run directory or a store, or set EVENHAND_STORE")
        where = Path(given)
    if not where.is_dir():
        raise UserError("there is no such folder", where=str(where), fix="name a run directory or a store")
    record = where / "experiment.json"
    if record.is_file():
        try:
            return Store(where / json.loads(record.read_text(encoding="utf-8"))["store"]), where.resolve()
        except (ValueError, KeyError, TypeError):
            raise UserError("this file cannot be read", where=str(record), fix="name the store itself") from None
    if (where / "store").is_dir():
        return Store(where / "store"), where.resolve()
    if not is_store(where):
        fix = "name a folder that `evenhand run` has written to"
        raise UserError("is no store and no run directory", where=str(where), fix=fix)
    return Store(where), None


def _entries_table(entries: list[StoredArtifact]) -> Table:
    table = Table(box=None, title=f"{len(entries)} artifacts", title_justify="left")
    for column in ("artifact", "kind", "state", "size", "runs", "used by", "key"):
        table.add_column(column, no_wrap=True, justify="right" if column in ("size", "runs", "used by") else "left")
    for e in sorted(entries, key=lambda e: (e.name, e.key, e.state)):
        state = f"{e.state} by {e.holder}" if e.holder else str(e.state)
        cells = (e.name or "?", e.kind, state, in_bytes(e.size), str(len(e.runs)), str(e.used_by or ""), e.key[:8])
        table.add_row(*(Text(cell, "" if e.runs else "dim") for cell in cells))
    return table


def _summary(found: Survey) -> list[str]:
    lines = [f"{found.store.root}: {in_bytes(found.size)}"]
    beside: dict[str, list[int]] = {}
    for name, size in found.other.items():  # KEY.spent.json and its like stand beside an artifact: said once for all
        key, _, what = name.partition(".")
        beside.setdefault(f"KEY.{what}" if len(key) == 32 and what else name, []).append(size)
    lines += [f"  {name}{f' ({len(sizes)})' * (len(sizes) > 1)}: {in_bytes(sum(sizes))}" for name, sizes in beside.items()]
    lines += [
        f"lock {lock.path.name[:8]}: nobody holds it ({lock.holder or 'no name left'})" for lock in found.locks if lock.stale
    ]
    lines += [f"run {run.folder} is gone: what it alone used has no user" for run in found.gone]
    unused = [e for e in found.entries if not e.runs]
    if unused and found.runs:
        freed = in_bytes(sum(e.size for e in unused))
        lines.append(f"{len(unused)} artifacts ({freed}) are used by no known run (dim above): `evenhand store prune --unused`")
    return lines


def _run_lines(found: Survey, run: Path | None) -> list[str]:
    """What each run takes, what of it others use too, and what its own folder adds (hard links add nothing)."""
    lines, ours = [], inodes(found.store.root)
    for known in found.runs:
        if run is not None and known.folder != run:
            continue
        mine = [e for e in found.entries if known.folder in e.runs]
        shared = [e for e in mine if len(e.runs) > 1]
        others = sorted({r.name for e in shared for r in e.runs if r != known.folder})
        lines.append(
            f"run {known.folder}: {len(mine)} artifacts, {in_bytes(sum(e.size for e in mine))}; its folder adds "
            f"{in_bytes(size_of(known.folder, but=ours))}"
        )
        if shared:
            lines.append(f"  {len(shared)} of them ({in_bytes(sum(e.size for e in shared))}) are shared with {', '.join(others)}")
    return lines


def _candidates_table(chosen: list[Candidate]) -> Table:
    table = Table(box=None)
    for column in ("artifact", "what", "size", "why"):
        table.add_column(column, no_wrap=column != "why", justify="right" if column == "size" else "left")
    for c in chosen:
        name = (c.entry.name or "?") if c.entry is not None else ""
        table.add_row(*map(Text, (name, c.path.name[:16], in_bytes(c.size) if c.entry else "", c.why)))
    return table
