"""The page on data names what there is, and its examples are valid sources."""

import re
from pathlib import Path

import pytest
import yaml

from evenhand.data.chat_templates import TEMPLATES
from evenhand.data.clean import check_options
from evenhand.data.formats import FORMATS
from evenhand.data.recipes import names

PAGE = Path(__file__).resolve().parents[2] / "docs" / "data.md"
CODE = set(re.findall(r"`([^`\n]+)`", PAGE.read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", [*names(), *TEMPLATES])
def test_every_recipe_and_template_is_named(name):
    assert name in CODE


def test_every_column_of_every_format_is_named():
    used = {field for f in FORMATS.values() for field in f.fields if f.name != "evenhand"}
    assert used <= CODE


def test_examples_are_valid():
    for block in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        example = yaml.safe_load(block)
        if "clean" in example:
            check_options(example["clean"], "docs")
