"""Live progress of a run: a matrix in a terminal, plain timestamped lines elsewhere, or nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from evenhand.display import spelled_out
from evenhand.runner.state import URGENT, RunState, StageState, StageStatus

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

_LOOKS = {
    StageStatus.QUEUED: ("·", "dim"),
    StageStatus.RUNNING: ("▶", "bold cyan"),
    StageStatus.CACHED: ("cached", "green dim"),
    StageStatus.DONE: ("done", "green"),
    StageStatus.FAILED: ("failed", "bold red"),
    StageStatus.WAITING: ("waits", "magenta"),
    StageStatus.BLOCKED: ("blocked", "yellow"),
    StageStatus.STOPPED: ("stopped", "yellow"),
}
_BAR = 20


class View(Protocol):
    """Someone watching the board. `changed` follows a change of status, `noted` a warning of a stage (each text once), `tick`
    comes a few times a second.
    """

    def start(self, board: RunState) -> None: ...
    def changed(self, cell: StageState) -> None: ...
    def noted(self, cell: StageState, text: str) -> None: ...
    def tick(self) -> None: ...
    def stop(self) -> None: ...


class Quiet:
    """Shows nothing."""

    def start(self, board: RunState) -> None: ...
    def changed(self, cell: StageState) -> None: ...
    def noted(self, cell: StageState, text: str) -> None: ...
    def tick(self) -> None: ...
    def stop(self) -> None: ...


class Lines:
    """One line per start and end of a node, and one per running node about every `every` seconds.

    A node that has not said how far it is shows after `first` seconds how long it has been running: nothing is silent.
    """

    def __init__(self, console: Console, *, every: float = 10.0, first: float = 5.0) -> None:
        self.console, self.every, self.first = console, every, first
        self.told: set[str] = set()
        self.last: dict[str, float] = {}

    def start(self, board: RunState) -> None:
        self.board = board
        cached = board.count(StageStatus.CACHED)
        self.line(f"{board.total} nodes, {cached} cached, {board.workers} at a time")

    def changed(self, cell: StageState) -> None:
        now = self.board.clock()
        self.last[cell.node.name] = now
        text = f"{cell.node.name}: {'started' if cell.status is StageStatus.RUNNING else cell.status}"
        if cell.status in (StageStatus.DONE, StageStatus.FAILED, StageStatus.WAITING, StageStatus.STOPPED) and cell.started:
            text += f" after {duration(cell.seconds(now))}"
        if cell.status is StageStatus.RUNNING and cell.node.cost:
            text += f" ({cell.node.cost})"
        self.line(text + (f": {cell.error}" if cell.error else ""))

    def noted(self, cell: StageState, text: str) -> None:
        self.line(f"{cell.node.name}: note: {text}")

    def tick(self) -> None:
        now = self.board.clock()
        for name, cell in self.board.cells.items():
            wait = self.every if cell.total or name in self.told else self.first
            if cell.status is StageStatus.RUNNING and now - self.last.get(name, now) >= wait:
                self.told.add(name)
                self.last[name] = now
                self.line(f"{name}: {_figures(cell, now)}; all: {_eta(self.board)}")

    def stop(self) -> None: ...

    def line(self, text: str) -> None:
        self.console.print(f"{time.strftime('%H:%M:%S')} {spelled_out(text)}", markup=False, highlight=False, soft_wrap=True)


class Matrix:
    """The nodes as a table of rows by columns, the running ones below with their figures, and the time left."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def start(self, board: RunState) -> None:
        from rich.live import Live

        self.board = board
        self.live = Live(console=self.console, refresh_per_second=4, get_renderable=self.render, transient=False)
        self.live.start()

    def changed(self, cell: StageState) -> None:
        from rich.text import Text

        if cell.status is StageStatus.FAILED:  # a Text: a `style=` given to print would colour the table below too
            self.live.console.print(Text(f"{cell.node.name} failed: {cell.error}", style="red"))

    def noted(self, cell: StageState, text: str) -> None:
        from rich.text import Text

        self.live.console.print(Text(spelled_out(f"{cell.node.name}: {text}"), style="yellow"))

    def tick(self) -> None: ...

    def stop(self) -> None:
        self.live.stop()

    def render(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        return Group(matrix(self.board), *running(self.board), Text(_foot(self.board), style="dim"))


def choose_view(console: Console, *, quiet: bool = False) -> View:
    """Quiet on demand, the matrix in a terminal, lines for a pipe, a log or a dumb terminal."""
    if quiet:
        return Quiet()
    return Matrix(console) if console.is_terminal and not console.is_dumb_terminal else Lines(console)


def matrix(board: RunState) -> Table:
    """Rows (arms and shared work) by columns (seeds); a cell shows its most urgent node."""
    from rich.table import Table
    from rich.text import Text

    places: dict[tuple[str, str], list[StageState]] = {}
    for cell in board.cells.values():
        places.setdefault((cell.node.row, cell.node.column), []).append(cell)
    rows = list(dict.fromkeys(row for row, _ in places))
    columns = list(dict.fromkeys(column for _, column in places))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for column in columns:
        table.add_column(column, min_width=9)
    for row in rows:
        cells = [_shown(places.get((row, column), [])) for column in columns]
        table.add_row(row, *(Text(text, style=style) for text, style in cells))
    return table


def running(board: RunState) -> list[RenderableType]:
    """One line per running node: a bar, its phase and figures."""
    from rich.text import Text

    now = board.clock()
    cells = [c for c in board.cells.values() if c.status is StageStatus.RUNNING]
    return [Text(f"▶ {c.node.name}  {_bar(c.share)} {_figures(c, now)}", overflow="ellipsis", no_wrap=True) for c in cells]


def _shown(cells: list[StageState]) -> tuple[str, str]:
    if not cells:
        return "", ""
    status = min((c.status for c in cells), key=URGENT.index)
    text, style = _LOOKS[status]
    if status is StageStatus.RUNNING:
        share = (sum(c.status.good for c in cells) + sum(c.share for c in cells if c.status is StageStatus.RUNNING)) / len(cells)
        return f"{text} {share:.0%}", style
    if status is StageStatus.QUEUED and any(c.status.good for c in cells):
        return f"· {sum(c.status.good for c in cells)}/{len(cells)}", style
    return text, style


def _bar(share: float) -> str:
    full = round(share * _BAR)
    return "━" * full + "┈" * (_BAR - full)


def _figures(cell: StageState, now: float) -> str:
    """ "policy 37% (44/120), 1m 20s left, reward 1.31"."""
    shown = dict(cell.shown)
    phase = f"{shown.pop('phase')} " if "phase" in shown else ""
    left = cell.remaining(now)
    parts = [f"{phase}{cell.share:.0%} ({cell.done:g}/{cell.total:g})" if cell.total else f"{phase}{duration(cell.seconds(now))}"]
    parts += [f"{duration(left)} left"] if left is not None else []
    parts += [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in shown.items()]
    return ", ".join(parts)


def _foot(board: RunState) -> str:
    good, failed = board.count(StageStatus.DONE, StageStatus.CACHED), board.count(StageStatus.FAILED)
    lost = f", {failed} failed" if failed else ""
    return f"{good} of {board.total} nodes{lost} · {duration(board.elapsed())} so far · {_eta(board)}"


def _eta(board: RunState) -> str:
    seconds, certain = board.eta()
    if board.count(StageStatus.QUEUED, StageStatus.RUNNING) + sum(board.coming.values()) == 0:
        return "finished"
    if not certain and seconds < 1:
        return "time left not known yet"
    return f"{'' if certain else 'at least '}{duration(seconds)} left"


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(3.4), duration(75), duration(3 * 3600 + 125), duration(200_000)
    ('3 s', '1m 15s', '3h 02m', '2d 7h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"
