"""An experiment file, read and checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from evenhand.configfile.document import Document
from evenhand.configfile.layers import Change, as_it_stands
from evenhand.configfile.schema import Loaded, load
from evenhand.errors import UserError
from evenhand.spec import checks
from evenhand.spec.aliases import answered
from evenhand.spec.experiment import Experiment
from evenhand.spec.former_keys import renamed, todays


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
