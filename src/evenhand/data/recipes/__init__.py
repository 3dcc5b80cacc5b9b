"""Recipes: how well-known public data sets become groups, one small YAML file each.

A recipe is a data source (see `DataSource`) with a name, `about` and `reference`; `completion` and `annotator` say who wrote
and who compared the answers. In an experiment: `recipe: shp`, with any key of the source beside it taking the place of the
recipe's (`path: my_copy.jsonl` reads a local copy of the same schema).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from evenhand.errors import one_of

_NOTES = ("about", "reference", "completion", "annotator")
_PLACE = ("name", "config", "split", "revision", "files", "streaming")


@lru_cache
def names() -> tuple[str, ...]:
    """The names of all recipes."""
    files = resources.files(__package__).iterdir()
    return tuple(sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml")))


def recipe(name: str, *, where: str = "data") -> dict[str, Any]:
    """A recipe as written, with `about` and `reference`; UserError with the closest names for an unknown one."""
    one_of("recipe", name, names(), where=f"{where}.recipe")
    return yaml.safe_load((resources.files(__package__) / f"{name}.yaml").read_text(encoding="utf-8"))


def with_recipe(source: Mapping[str, Any], *, where: str = "data") -> dict[str, Any]:
    """A source whose `recipe` is replaced by what it stands for; the source's own keys win.

    A `path` takes the place of the recipe's Hub name, so that a local copy with the same columns can be read.
    """
    if "recipe" not in source:
        return dict(source)
    made = {key: value for key, value in recipe(source["recipe"], where=where).items() if key not in _NOTES}
    if "path" in source:
        made = {key: value for key, value in made.items() if key not in _PLACE}
    return {**made, **{key: value for key, value in source.items() if key != "recipe"}}
