"""Fixtures every test may use."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from multiprocessing import forkserver
from pathlib import Path

import pytest

from tests.report.browser import Browser, find_chromium, running

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when the hub's library is imported; a test that looks for a hub would wait for it
ROOT = Path(__file__).resolve().parents[1]


def pytest_collection_finish() -> None:
    """What has been imported and collected lives to the end: no later collection of garbage need look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """A folder with real data (`data/`) and tiny real models (`models/`), named by EVENHAND_DATA; tests skip without it."""
    folder = Path(os.environ.get("EVENHAND_DATA", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("no real data here: set EVENHAND_DATA to a folder with data/ and models/")
    return folder


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache of the tests' own with figures of some machine: nothing goes into the user's, and no plan measures first."""
    from evenhand.plan.costs import keep, machine

    folder = tmp_path_factory.mktemp("cache")
    os.environ["EVENHAND_CACHE"] = str(folder)
    for threads in (1, 2):
        some = machine.Machine(
            name="some machine", threads=threads, memory_bytes=machine.memory(), products={"float32": 1e11}, bandwidth=1e10
        )
        keep.keep_machine(folder / "no store", some)


@pytest.fixture(scope="session", autouse=True)
def warm_fork_server() -> Iterator[None]:
    """This process has one fork server, which imports what its first user asks for: whoever that is, it imports what ranks and
    stages need, and not each of their processes again."""
    from evenhand.runner.ranks import WARM

    asked = forkserver.set_forkserver_preload
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forkserver, "set_forkserver_preload", lambda modules: asked([*dict.fromkeys([*WARM, *modules])]))
        yield


@pytest.fixture(scope="module", autouse=True)
def checked_once(request: pytest.FixtureRequest) -> Iterator[None]:
    """As in a stage, models of one kind are checked once in a file of tests; tests of the checks make each anew."""
    from evenhand.models import checked

    with nullcontext() if request.path.is_relative_to(ROOT / "tests" / "models") else checked.remembered():
        yield


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Tests run side by side; results must not depend on the number of threads."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """A command as it is typed: its exit code, and what it wrote to the screen and to the errors."""
    import evenhand.cli

    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evenhand", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            evenhand.cli.main()
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, err

    return call


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    executable = find_chromium()
    if executable is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on this machine")
    with running(executable) as found:
        yield found
