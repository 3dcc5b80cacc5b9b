"""Length terms and unfinished answers by hand; the overlong formula against the tensor version."""

import pytest
import torch

from evenhand.core.kl_control import overlong_penalty
from evenhand.errors import UserError
from evenhand.rewards.shaping import Unfinished, length, overlong
from evenhand.types import Completion, Finish, Group, Prompt, Scores


def group(*completions):
    return Group(prompt=Prompt(content="p"), completions=completions)


def sampled(n, finish=Finish.STOP):
    return Completion(content="x", tokens=(1,) * n, finish=finish)


def test_length_by_unit():
    texts = group(Completion(content="ab, cd!"), Completion(content=""))
    assert length(unit="chars")([texts])[0].values == (7.0, 0.0)
    assert length(unit="words", over=1)([texts])[0].values == (1.0, 0.0)
    assert length(unit="tokens")([group(sampled(5))])[0].values == (5.0,)


def test_tokens_of_a_text_from_a_file_are_unknown():
    with pytest.raises(UserError, match="unit: words"):
        length(unit="tokens")([group(Completion(content="a"))])


def test_overlong_is_the_core_formula():
    sizes = (1, 10, 12, 15, 20, 30)
    found = overlong(limit=20, buffer=10)([group(*map(sampled, sizes))])[0].values
    assert found == pytest.approx(overlong_penalty(torch.tensor(sizes, dtype=torch.float), limit=20, buffer=10).tolist())
    assert found == pytest.approx((0.0, 0.0, -0.2, -0.5, -1.0, -1.0))


@pytest.mark.parametrize(("rule", "expected"), [("none", 3.0), ("replace", -1.0), ("subtract", 4.0)])
def test_rules_for_unfinished_answers(rule, expected):
    def three(groups):
        return [Scores((3.0,) * len(g.completions), {"part": (0.0,) * len(g.completions)}) for g in groups]

    answers = group(sampled(2), sampled(2, Finish.LENGTH), Completion(content="from a file"))
    found = Unfinished(inner=three, rule=rule, value=-1.0)([answers])[0]
    assert found.values == (3.0, expected, 3.0)
    assert found.parts == {"part": (0.0,) * 3, "unfinished": (0.0, 1.0, 0.0), "score": (3.0,) * 3}


def test_wrong_names_get_a_hint():
    with pytest.raises(UserError, match="'replace'"):
        Unfinished(inner=lambda groups: [], rule="replce")
    with pytest.raises(UserError, match="'words'"):
        length(unit="word")
    with pytest.raises(UserError, match="buffer"):
        overlong(limit=10, buffer=0)
