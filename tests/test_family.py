"""Names of other tools are answered, ambiguous ones refused with a reason, and the family tree holds every method once."""

from __future__ import annotations

import re

import pytest

from evenhand.errors import UserError
from evenhand.manual import family
from evenhand.methods import METHODS
from evenhand.spec.arms import parse_arm


def arm(name: str):
    return parse_arm("a", {"method": name}, where="arms.a", train={}, defaults={})


@pytest.mark.parametrize(("theirs", "here"), [
    ("sigmoid_norm", "dpo_norm"), ("sigmoid", "dpo"), ("exo_pair", "exo"), ("sppo_hard", "sppo"), ("aot_unpaired", "aot"),
    ("robust", "robust_dpo"),
])  # fmt: skip
def test_another_tool_s_name_is_the_same_arm(theirs, here):
    assert arm(theirs) == arm(here)
    assert arm(theirs).method == here


def test_no_name_of_another_tool_hides_a_method():
    assert not METHODS.aliases.keys() & METHODS.entries.keys()
    assert set(METHODS.aliases.values()) <= METHODS.entries.keys()


@pytest.mark.parametrize("name", sorted(METHODS.refused))
def test_a_refused_name_says_why_and_what_to_use(name):
    with pytest.raises(UserError) as caught:
        arm(name)
    assert caught.value.what == f"there is no method '{name}'"
    assert len(caught.value.why) > 10
    assert any(named in METHODS for named in re.findall(r"`(\w+)`", caught.value.fix))


def test_the_tree_holds_every_method_once():
    held = re.findall(r"^ *- \[(\w+)\]", family.tree(), re.MULTILINE)
    assert sorted(held) == sorted(METHODS)


def test_what_is_said_of_other_tools_names_methods_and_tools():
    for name, (of, differs, elsewhere) in family.facts().items():
        assert of == "" or of in METHODS, name
        assert bool(of) == bool(differs), f"{name}: what differs from {of}?"
        assert elsewhere.keys() <= family.TOOLS.keys(), name
