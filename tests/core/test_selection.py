"""Selection of pairs and bests, with ties, gaps and unscored prompts."""

import math
from itertools import combinations

import pytest
import torch

from evenhand.core.credit import all_pairs, best_of, best_vs_worst

NAN = math.nan
SCORE = torch.tensor([[0.1, 0.9, 0.5], [NAN, 3.0, -1.0], [2.0, 2.0, 2.0], [NAN, 4.0, NAN], [NAN, NAN, NAN]])
FLAT = torch.zeros_like(SCORE)


def test_best_vs_worst_names_completions_in_the_flat_order():
    assert best_vs_worst(SCORE, FLAT).tolist() == [[1, 0], [4, 5]]


def test_best_of_keeps_every_prompt_with_a_score():
    assert best_of(SCORE, torch.tensor([[0.0, 0.1, 0.2]]).expand(5, 3)).tolist() == [1, 4, 8, 10]


def test_an_unscored_completion_is_never_taken_for_the_worst_possible_score():
    score = torch.tensor([[NAN, -math.inf]])
    assert best_of(score, torch.tensor([[0.9, 0.1]])).tolist() == [1]


def test_tolerance_drops_near_ties():
    score = torch.tensor([[0.0, 0.05], [0.0, 0.2]])
    assert best_vs_worst(score, torch.zeros(2, 2), tolerance=0.1).tolist() == [[3, 2]]
    assert all_pairs(score, tolerance=0.1)[0].tolist() == [[3, 2]]


@pytest.mark.parametrize("favoured", [0, 2, 3])
def test_ties_are_broken_by_the_uniform_numbers_alone(favoured):
    score = torch.tensor([[1.0, 0.0, 1.0, 1.0]])
    uniform = torch.tensor([[0.3, 0.99, 0.3, 0.3]])
    uniform[0, favoured] = 0.5
    assert best_of(score, uniform).tolist() == [favoured]
    assert best_vs_worst(score, uniform).tolist() == [[favoured, 1]]
    assert best_vs_worst(-score, uniform).tolist() == [[1, favoured]]


def test_ties_are_uniform_over_draws():
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(3000, 3, generator=generator)
    share = torch.bincount(best_of(torch.ones(3000, 3), uniform) % 3) / 3000
    assert (share - 1 / 3).abs().max() < 4 * math.sqrt(2 / 9 / 3000)


def test_all_pairs_of_a_ranking_against_enumeration():
    score = torch.tensor([[3.0, 1.0, 2.0, 0.0], [1.0, 1.0, 0.0, NAN]])
    pairs, weight = all_pairs(score)
    expected = set()
    for prompt, row in enumerate(score.tolist()):
        for i, j in combinations(range(4), 2):
            if row[i] > row[j]:
                expected.add((4 * prompt + i, 4 * prompt + j))
            elif row[j] > row[i]:
                expected.add((4 * prompt + j, 4 * prompt + i))
    assert {tuple(p) for p in pairs.tolist()} == expected
    assert len(pairs) == 6 + 2
    torch.testing.assert_close(weight, torch.tensor([1 / 6] * 6 + [1 / 2] * 2))


def test_no_pair_at_all_keeps_the_shape():
    pairs, weight = all_pairs(torch.tensor([[1.0, 1.0], [NAN, 0.0]]))
    assert pairs.shape == (0, 2)
    assert weight.shape == (0,)
    assert best_vs_worst(torch.tensor([[NAN]]), torch.zeros(1, 1)).shape == (0, 2)
