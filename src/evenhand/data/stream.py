"""Sources larger than memory: groups one at a time, shuffled within windows, resumed exactly where they stopped."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from evenhand.data import convert
from evenhand.data.load import SAMPLE, is_text, parse_row, placed_rows, recognise
from evenhand.data.readers import Placed
from evenhand.data.recipes import with_recipe
from evenhand.data.rows import BadRow
from evenhand.data.source import DataSource, parse_source
from evenhand.data.steps import Stepped, run_steps
from evenhand.data.watch import Watch, refuse_repeated_prompts
from evenhand.errors import UserError
from evenhand.seeding import rng
from evenhand.types import Group

_log = logging.getLogger(__name__)


class GroupStream:
    """The groups of a source in the order of a seed, with at most a window of them in memory.

    Rows are read in order; every `window` groups are shuffled among themselves by (seed, epoch, window). With `window=1`
    the order is the file's. `state_dict` says where the stream stands; a stream with that state gives exactly what would
    have come. `epochs=None` goes on for ever. What needs all rows at once (`collect`, `clean`, `per_prompt`, `use: prompts`,
    `shuffle_seed`) is refused with a UserError. `skipped` counts bad rows left out by `on_bad_row: skip`.
    """

    def __init__(
        self,
        source: Mapping[str, Any] | str,
        *,
        window: int = 4096,
        seed: int = 0,
        epochs: int | None = 1,
        where: str = "data",
    ) -> None:
        source = source if isinstance(source, str) else with_recipe(source, where=where)
        self._spec = parse_source(source, where=where)
        _refuse_whole(self._spec, where)
        self._window, self._seed, self._epochs = window, seed, epochs
        sample = list(itertools.islice(run_steps(placed_rows(self._spec), self._spec.steps, Counter()), SAMPLE))
        self._format = recognise(self._spec, sample, where)
        refuse_repeated_prompts(self._format, sample, self._spec.reading, self._spec.label)
        self._watch = Watch(self._format, self._spec.reading, self._spec.label)
        self._epoch = self._row = self._given = 0
        self._groups = self._all()
        self.skipped = 0

    def __iter__(self) -> Iterator[Group]:
        return self

    def __next__(self) -> Group:
        return next(self._groups)

    def state_dict(self) -> dict[str, int]:
        """`row`: rows read before the current window; `given`: groups of it that were handed out."""
        return {"epoch": self._epoch, "row": self._row, "given": self._given}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self._epoch, self._row, self._given = state["epoch"], state["row"], state["given"]
        self._groups = self._all()

    def _all(self) -> Iterator[Group]:
        while self._epochs is None or self._epoch < self._epochs:
            rows = _Counted(itertools.islice(placed_rows(self._spec), self._row, None))
            stepped = run_steps(rows, self._spec.steps, Counter())
            found = False
            while window := self._fill(stepped):
                found = True
                order = rng(self._seed, "stream", self._epoch, self._row).permutation(len(window))
                for index in order[self._given :]:
                    self._given += 1
                    yield window[index]
                self._row, self._given = self._row + rows.taken(), 0
            self._say()
            if not found and self._row == 0:
                raise UserError(f"{self._spec.label} holds no usable rows", fix="check the path, the split and the steps")
            self._epoch, self._row, self._given = self._epoch + 1, 0, 0

    def _say(self) -> None:
        """Once, at the end of the first pass: what a loaded source has in its description."""
        for line in self._watch.said() if self._epoch == 0 else ():
            _log.warning("%s: %s", self._spec.label, line)

    def _fill(self, rows: Iterator[Stepped]) -> list[Group]:
        """The next window: at least `window` groups unless the rows end."""
        groups: list[Group] = []
        for place, data in rows:
            try:
                made = parse_row(self._spec, self._format, place, data, self._watch)
            except BadRow:
                if self._spec.on_bad_row == "error":
                    raise
                self.skipped += 1
                continue
            if self._spec.use:
                made = convert.CONVERSIONS[self._spec.use](made)
            groups += made if self._spec.margin is None else convert.with_margin(made, self._spec.margin)
            if len(groups) >= self._window:
                break
        return groups


class _Counted:
    """Rows that know how many of them were taken since the last question."""

    def __init__(self, rows: Iterator[Placed]) -> None:
        self._rows, self._taken = rows, 0

    def __iter__(self) -> Iterator[Placed]:
        for row in self._rows:
            self._taken += 1
            yield row

    def taken(self) -> int:
        count, self._taken = self._taken, 0
        return count


def _refuse_whole(spec: DataSource, where: str) -> None:
    """Raises UserError for what cannot be done one row at a time."""
    asked = {
        "format: documents": is_text(spec),
        "use: prompts": spec.use == "prompts",
        "clean": bool(spec.clean),
        "per_prompt": spec.per_prompt is not None,
        "shuffle_seed": spec.shuffle_seed is not None,
        "limit": spec.limit is not None,
        "steps: collect": any("collect" in step for step in spec.steps),
    }
    for name, wanted in asked.items():
        if wanted:
            fix = "use load, or leave it out; a stream shuffles by its own seed"
            raise UserError(f"'{name}' needs all rows in memory", where=where, fix=fix)
