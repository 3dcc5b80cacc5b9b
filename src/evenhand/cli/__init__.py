"""The command line. Commands import what they need when they run: `evenhand --help` answers at once.

Exit codes: 0 fine, 1 a bug, 2 the input is wrong, 3 some stages failed, 4 people must label first, 130 stopped.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import Annotated

import typer

import evenhand
from evenhand.cli import (
    data,
    doctor,
    evaluate,
    experiments,
    export,
    inference,
    info,
    init,
    judge,
    label,
    statistics,
    store,
    synthesize,
    tune,
    watch,
)
from evenhand.cli.terminal import BUG, WAITING, WRONG_INPUT
from evenhand.display import shown
from evenhand.errors import Pending, UserError

app = typer.Typer(
    name="evenhand",
    help="Preference fine-tuning with everything else held equal.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _say_version(asked: bool) -> None:
    if asked:
        print(f"evenhand {evenhand.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Show the version.")] = False,
) -> None: ...


for _command in (
    init.init, experiments.run, experiments.report, experiments.compare, watch.watch, watch.track, tune.tune, doctor.doctor,
    inference.generate, inference.chat, inference.score, evaluate.evaluate, judge.judge, label.label, export.export, info.keys,
    info.env, info.theory,
):  # fmt: skip
    app.command()(_command)
for _maker in (synthesize.revise, synthesize.invent, synthesize.phrase, synthesize.pairs):
    data.app.command()(_maker)
app.add_typer(data.app)
app.add_typer(statistics.app)
app.add_typer(store.app)


def main() -> None:
    """Entry point of `evenhand`."""
    # products of the statistics are many and small: threads of NumPy's library only wait for each other, 25 times as long
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        app()
    except UserError as error:
        print(shown(str(error)), file=sys.stderr)
        raise SystemExit(WAITING if isinstance(error, Pending) else WRONG_INPUT) from None
    except OSError as error:
        if error.filename is None and error.errno not in (errno.ENOSPC, errno.EDQUOT):
            _say_bug()
            raise SystemExit(BUG) from None
        fix = "check the path and who may read and write there" if error.filename else "free some space"
        print(UserError(str(error.strerror), where=str(error.filename or ""), fix=fix), file=sys.stderr)
        raise SystemExit(WRONG_INPUT) from None
    except Exception:
        _say_bug()
        raise SystemExit(BUG) from None


def _say_bug() -> None:
    print(shown(traceback.format_exc()), end="", file=sys.stderr)
    print("\nThis is a bug in evenhand, not in your input. Please report it with the output of `evenhand env`.", file=sys.stderr)
