import math

import pytest

from evenhand.data.convert import binary, convert, demonstrations, holdout, pairs, prompts, shuffled, with_margin
from evenhand.errors import UserError
from evenhand.types import Completion, Group, Prompt


def group(prompt, scores, parts=None) -> Group:
    completions = tuple(Completion(content=f"{prompt}-{i}") for i in range(len(scores)))
    return Group(prompt=Prompt(content=prompt), completions=completions, scores=tuple(scores), parts=parts or {})


def answers(groups):
    return [[c.content for c in g.completions] for g in groups]


def test_pairs_of_a_ranking_widest_first_without_ties_and_unscored():
    found = pairs([group("q", (1.0, 3.0, math.nan, 1.0, 7.0), {"len": (10.0, 30.0, 0.0, 11.0, 70.0)})])
    assert answers(found) == [["q-4", "q-0"], ["q-4", "q-3"], ["q-4", "q-1"], ["q-1", "q-0"], ["q-1", "q-3"]]
    assert [g.scores for g in found] == [(7.0, 1.0), (7.0, 1.0), (7.0, 3.0), (3.0, 1.0), (3.0, 1.0)]
    assert found[0].parts == {"len": (70.0, 10.0)}
    assert answers(pairs([group("q", (1.0, 3.0, 7.0))], limit=1)) == [["q-2", "q-0"]]


def test_k_different_scores_give_all_pairs():
    assert len(pairs([group("q", (1.0, 2.0, 3.0, 4.0, 5.0))])) == 10


def test_demonstrations_take_the_best_and_leave_out_the_bad():
    found = demonstrations(
        [group("a", (0.0, 1.0)), group("b", (math.nan,)), group("c", (0.0,)), group("d", (1.0,)), group("e", ())]
    )
    assert answers(found) == [["a-1"], ["b-0"], ["d-0"]]
    assert all(math.isnan(g.scores[0]) for g in found)


def test_binary_has_one_good_and_one_bad_per_pair():
    found = binary([group("a", (0.0, 1.0)), group("tie", (1.0, 1.0))])
    assert answers(found) == [["a-1"], ["a-0"]]
    assert [g.scores for g in found] == [(1.0,), (0.0,)]


def test_prompts_are_distinct_and_in_order():
    found = prompts(iter([group("b", (1.0,)), group("a", (1.0,)), group("b", (0.0,))]))
    assert [g.prompt.content for g in found] == ["b", "a"]
    assert all(g.completions == () for g in found)


def test_conversion_that_leaves_nothing_is_an_error():
    with pytest.raises(UserError, match="no pairs can be made of these 1 groups"):
        convert([group("a", (1.0, 1.0))], "pairs")


def test_holdout_keeps_a_prompt_on_one_side_and_is_stable():
    groups = [group(f"p{i % 500}", (1.0, 0.0)) for i in range(1000)]
    kept, held = holdout(groups, 0.2, seed=3)
    assert not {g.prompt.id for g in kept} & {g.prompt.id for g in held}
    assert len(kept) + len(held) == 1000
    assert 140 < len(held) < 260, "400 prompts of 500 kept; 200 groups expected, 6 standard deviations are 107"
    again = holdout(groups[::-1][:300], 0.2, seed=3)[1]
    assert {g.prompt.id for g in again} == {g.prompt.id for g in held} & {g.prompt.id for g in groups[::-1][:300]}
    assert {g.prompt.id for g in holdout(groups, 0.2, seed=4)[1]} != {g.prompt.id for g in held}
    assert holdout(groups, 0.0, seed=0)[1] == []
    assert holdout(groups, 1.0, seed=0)[0] == []
    with pytest.raises(UserError, match="not a share"):
        holdout(groups, 1.2, seed=0)


def test_shuffle_is_a_permutation_fixed_by_the_seed():
    groups = [group(f"p{i % 40}", (float(i),)) for i in range(60)]
    once = shuffled(groups, 1)
    assert sorted(g.scores for g in once) == sorted(g.scores for g in groups)
    assert once == shuffled(groups, 1)
    assert once != shuffled(groups, 2)
    assert once != groups


@pytest.mark.parametrize("scores", [(math.nan, 1, 5), (1, math.nan, 5), (1, 5, math.nan)])
def test_a_margin_is_that_of_the_known_scores_wherever_an_unscored_answer_stands(scores):
    assert len(with_margin([group("q", scores)], 3.9)) == 1
    assert with_margin([group("q", scores), group("r", (math.nan,)), group("s", ())], 4.0) == []
