"""Rewards by name: what the keys mean, and what wrong keys say."""

import pytest

from evenhand import rewards, worlds
from evenhand.errors import UserError
from evenhand.judges.verdict import Verdict
from evenhand.rewards.tournament import Tournament
from evenhand.types import Completion, Group, Prompt, Scores

GROUP = Group(
    prompt=Prompt(content="p", meta={"answer": 4}), completions=(Completion(content="It is 4"), Completion(content="5 or 6"))
)


def values(spec, **options):
    return rewards.get(spec, **options)([GROUP])[0].values


def test_names_alone_and_mappings():
    assert values("number") == values({"kind": "number"}) == (1.0, 0.0)
    assert values({"kind": "length", "unit": "words", "over": 2}) == (1.0, 1.0)


def test_nested_rewards():
    spec = {
        "kind": "clip",
        "high": 0.9,
        "reward": {
            "kind": "weighted",
            "parts": [{"reward": "number"}, {"reward": {"kind": "length", "unit": "chars"}, "weight": -0.01}],
        },
    }
    found = rewards.get(spec)([GROUP])[0]
    assert found.values == pytest.approx((0.9, -0.06))
    assert found.parts["number"] == (1.0, 0.0)
    assert found.parts["length"] == (7.0, 6.0)


def test_ensemble_affine_and_unfinished():
    affine = {"kind": "affine", "reward": "number", "shift": 1.0, "scale": 2.0}
    assert values({"kind": "ensemble", "rule": "min", "members": ["number", affine]}) == (0.0, -0.5)
    assert values({"kind": "unfinished", "reward": "number", "rule": "replace", "value": -1}) == (1.0, 0.0)


def test_gold_of_a_world_with_options():
    world = worlds.get("countdown", reasoning=True)
    groups = world.demonstrations(0, 5)
    assert rewards.get({"kind": "gold", "world": "countdown", "reasoning": True})(groups) == world.gold(groups)


def test_loaded_models_come_from_resources():
    def two(groups):
        return [Scores((2.0,) * len(g.completions)) for g in groups]

    assert values({"kind": "model", "name": "rm"}, resources={"rm": two}) == (2.0, 2.0)
    inside = {"kind": "weighted", "parts": [{"reward": {"kind": "model", "name": "rm"}, "weight": 0.5}]}
    assert values(inside, resources={"rm": two}) == (1.0, 1.0)
    with pytest.raises(UserError, match="did you mean 'careful'"):
        rewards.get({"kind": "model", "name": "carefull"}, {"careful": two})


def test_a_preference_model_scores_by_the_tournament_that_is_named():
    """Longer answers win: three neighbours in a knock-out leave 0 rounds to the loser; Borda counts everybody's wins."""
    judge = lambda pairs: [Verdict(outcome=float(len(p.a.text) > len(p.b.text))) for p in pairs]  # noqa: E731
    group = Group(prompt=Prompt(content="p"), completions=tuple(Completion(content="x" * n) for n in (2, 1, 3)))
    resources = {"pm": Tournament(judge), "rm": lambda groups: []}
    scored = lambda **rule: rewards.get({"kind": "model", "name": "pm", **rule}, resources)([group])[0].values  # noqa: E731
    assert scored() == scored(rule="borda") == (0.5, 0.0, 1.0)
    assert scored(rule="knock_out") == (1.0, 0.0, 2.0)
    with pytest.raises(UserError, match="did you mean 'knock_out'"):
        scored(rule="knockout")
    with pytest.raises(UserError, match="scores each answer by itself"):
        rewards.get({"kind": "model", "name": "rm", "rule": "borda"}, resources)


def test_functions_are_found_next_to_the_experiment(tmp_path):
    (tmp_path / "my.py").write_text(
        "def score(prompt, completion):\n    return 1\ndef rank(group):\n    return range(len(group.completions))\n"
    )
    assert values({"kind": "function", "path": "my.py:score"}, base=tmp_path) == (1.0, 1.0)
    assert values({"kind": "function", "path": "my.py:rank", "sees": "group"}, base=tmp_path) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nmber", "did you mean 'number'"),
        ({}, "no kind"),
        ({"kind": "length"}, "missing 'unit'"),
        ({"kind": "length", "unit": "words", "ovr": 1}, "did you mean 'over'"),
        ({"kind": "vader", "x": 1}, "unknown key 'x'"),
        ({"kind": "gold", "world": "quikstart"}, "quickstart"),
        ({"kind": "code", "run_untrusted_code": False}, "programs that a model wrote"),
        ({"kind": "code"}, "missing 'run_untrusted_code'"),
        ({"kind": "function", "path": "x.py:f", "sees": "groups"}, "did you mean 'group'"),
        ({"kind": "weighted", "parts": []}, "at least one"),
        ({"kind": "weighted", "parts": [{"weight": 1}]}, "'reward' is missing"),
        ({"kind": "weighted", "parts": [{"reward": "number"}, {"reward": "number"}]}, "two parts"),
        ({"kind": "weighted", "parts": [{"reward": "nmber"}]}, r"reward.parts\[0\].reward.kind"),
        ({"kind": "unfinished", "reward": "number", "rule": "drop"}, "known"),
    ],
)
def test_wrong_specs_name_the_key_and_the_way_out(spec, message):
    with pytest.raises(UserError, match=message):
        rewards.get(spec)


def test_where_names_the_place_in_the_experiment():
    with pytest.raises(UserError, match=r"arms\.grpo\.reward\.kind"):
        rewards.get("nmber", where="arms.grpo.reward")


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"kind": "length", "unit": "words", "over": "10"}, "reward.over"),
        ({"kind": "clip", "reward": "thinking", "low": None}, "reward.low"),
        ({"kind": "clip", "reward": ["thinking"]}, "reward.reward"),
        ({"kind": "format", "pattern": 3}, "reward.pattern"),
        ({"kind": "number", "tolerance": "a"}, "reward.tolerance"),
        ({"kind": "ensemble", "members": "thinking"}, "reward.members"),
        ({"kind": "weighted", "parts": [{"reward": "thinking", "weight": "2"}]}, "reward.parts[0].weight"),
        ({"kind": "weighted", "parts": [{"reward": "thinking", "where": "x"}]}, "reward.parts[0].where"),
        ({"kind": "weighted", "parts": ["thinking"]}, "reward.parts.0"),
        ({"kind": "rubric", "criteria": [{"reward": "thinking", "least": "much"}]}, "reward.criteria[0].least"),
        ({"kind": "rubric", "criteria": [{"ask": 3}], "judge": {"kind": "llm", "model": "m"}}, "reward.criteria[0].ask"),
        ({"kind": "endpoint", "url": 3}, "reward.url"),
        ({"kind": "gold", "world": None}, "world"),
    ],
)
def test_a_value_of_another_type_is_said_by_its_key_before_anything_is_scored(spec, where):
    with pytest.raises(UserError) as error:
        rewards.get(spec)
    assert error.value.where == where


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), float("inf")])
def test_a_tolerance_is_a_distance(tolerance):
    with pytest.raises(UserError, match="a tolerance of"):
        rewards.get({"kind": "number", "tolerance": tolerance})


@pytest.mark.parametrize(("named", "path"), [("mine.py:score", "mine.py:score"), ("a/mine.py", "a/mine.py:NAME")])
def test_a_file_in_place_of_a_name_is_answered_with_the_way_to_say_it(named, path, tmp_path):
    from evenhand.cli.scores import scorer

    for ask in (rewards.get, lambda name: scorer(name, "cpu")):
        with pytest.raises(UserError) as told:
            ask(named)
        assert told.value.fix == f"a function of a file is '{{kind: function, path: \"{path}\"}}'"
