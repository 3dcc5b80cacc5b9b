"""The registry: what it remembers, what it refuses."""

from __future__ import annotations

import logging
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evenhand.errors import UserError
from evenhand.methods import METHODS
from evenhand.registry import REGISTRIES, Registry, forget
from evenhand.spec.arms import parse_arm


@pytest.fixture
def shapes() -> Iterator[Registry[Any]]:
    yield Registry("shape", facts=("corners",))
    del REGISTRIES["shape"]


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text("from evenhand.registry import REGISTRIES\nshape = REGISTRIES['shape'].register\n" + text)
    return path


def test_a_place_is_the_module_that_registers_however_deep_the_call(shapes: Registry[Any], tmp_path: Path) -> None:
    text = "def deep(f):\n    return shape()(f)\n\n@deep\ndef ring(): return 1\n"
    path = written(tmp_path, "rings.py", text)
    runpy.run_path(str(path), run_name="rings")
    entry = shapes.entries["ring"]
    assert (entry.source, entry.line, entry.value()) == (path, 6, 1)
    assert list(shapes) == ["ring"]
    assert "square" not in shapes


def test_two_files_with_one_name_are_refused_by_file_and_line(shapes: Registry[Any], tmp_path: Path) -> None:
    first = written(tmp_path, "first.py", "@shape()\ndef ring(): pass\n")
    second = written(tmp_path, "second.py", "\n@shape('ring')\ndef other(): pass\n")
    runpy.run_path(str(first), run_name="first")
    with pytest.raises(UserError, match=f"{second}:4: a shape 'ring' is registered twice\n.*{first}:3"):
        runpy.run_path(str(second), run_name="second")
    forget([first])
    runpy.run_path(str(second), run_name="second")
    assert shapes.entries["ring"].source == second


def test_a_former_name_is_answered_with_one_line(shapes: Registry[Any], caplog: pytest.LogCaptureFixture) -> None:
    shapes.register("square", was="box", corners=4)(dict)
    with caplog.at_level(logging.WARNING):
        assert (shapes.find("box"), shapes["box"], shapes.canonical("box")) == (dict, dict, "square")
    assert [record.getMessage() for record in caplog.records] == [
        "the shape 'box' is now called 'square'; the old name goes with the next release"
    ]
    assert list(shapes) == ["square"]


def test_an_unknown_name_and_an_unknown_fact_are_refused(shapes: Registry[Any]) -> None:
    shapes.register("square", corners=4)(dict)
    with pytest.raises(UserError, match=r"arms\.a: unknown shape 'sqare'\n  fix: did you mean 'square'"):
        shapes.find("sqare", where="arms.a")
    with pytest.raises(UserError, match="a shape has no fact 'korners'\n  fix: did you mean 'corners'"):
        shapes.register("ring", korners=0)
    with pytest.raises(KeyError):
        shapes["sqare"]


@pytest.mark.parametrize(
    ("old", "new"),
    [("rank", "rank_advantage"), ("local", "local_reward_model"), ("hinge", "rso_hinge")],
)
def test_an_arm_may_name_a_method_as_before_and_is_the_same_arm(old: str, new: str, caplog: pytest.LogCaptureFixture) -> None:
    METHODS.answered.discard(old)
    with caplog.at_level(logging.WARNING):
        arms = [parse_arm("a", {"method": name}, where="arms.a", train={}, defaults={}) for name in (old, old, new)]
    assert arms[0] == arms[1] == arms[2]
    assert arms[0].method == new
    assert caplog.text.count(f"the method '{old}' is now called '{new}'") == 1
