"""The oldest versions are the same wherever they are named: the requirements, the lane that tries them, the doctor."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from evenhand.doctor.budget import TESTED

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def bounds() -> dict[str, str]:
    """Package -> its lower bound, of all that have one."""
    required = [*PROJECT["dependencies"], *(r for of in PROJECT["optional-dependencies"].values() for r in of)]
    return {m[1]: m[2] for r in required if (m := re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)", r))}


def test_the_lane_of_the_oldest_versions_tries_the_lower_bounds() -> None:
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    stated = {name: bound for name, bound in bounds().items() if name in pinned}
    assert pinned.keys() == stated.keys()
    for name, version in pinned.items():
        assert version == stated[name] or version.startswith(f"{stated[name]}."), name
    assert {"torch", "transformers", "pydantic", "peft", "optuna"} <= pinned.keys()


def test_the_doctor_refuses_what_is_older() -> None:
    assert {name: ".".join(map(str, version)) for name, version in TESTED.items()} == {
        name: bounds()[name] for name in ("torch", "transformers")
    }
