"""Packing: flat order, positions, masks, and the one shift by one."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evenhand.data.batch import completion_ids, pack, predictor_index, split_by_tokens, token_index
from evenhand.types import Completion, Group, Prompt, Span, TokenGroup, Tokens


def group(prompt, *completions, logps=None):
    record = Group(prompt=Prompt(content="p"), completions=tuple(Completion(content="c") for _ in completions))
    logps = logps or [None] * len(completions)
    tokens = tuple(Tokens(ids=c, mask=(True,) * len(c), behaviour_logp=b) for c, b in zip(completions, logps, strict=True))
    return TokenGroup(prompt=prompt, completions=tokens, group=record)


def test_flat_order_positions_and_layout():
    batch = pack([group((10, 11, 12), (20, 21), (30,)), group((40,), (50, 51, 52))])
    assert batch.ids.tolist() == [10, 11, 12, 20, 21, 30, 40, 50, 51, 52]
    assert batch.positions.tolist() == [0, 1, 2, 3, 4, 3, 0, 1, 2, 3]
    assert batch.layout.prompts == (Span(0, 3), Span(6, 1))
    assert batch.layout.completions == (Span(3, 2), Span(5, 1), Span(7, 3))
    assert batch.layout.owner == (0, 0, 1)
    assert batch.layout.total == 10
    assert completion_ids(batch).tolist() == [[20, 21, 0], [30, 0, 0], [50, 51, 52]]


def test_the_state_before_a_token_predicts_it():
    batch = pack([group((10, 11, 12), (20, 21), (30,)), group((40,), (50, 51, 52))])
    assert token_index(batch.layout).tolist() == [[3, 4, -1], [5, -1, -1], [7, 8, 9]]
    # The last prompt token predicts the first token of each of its completions; then each token predicts the next.
    assert predictor_index(batch.layout).tolist() == [[2, 3, -1], [2, -1, -1], [6, 7, 8]]


def test_masks_keep_what_does_not_count():
    tokens = Tokens(ids=(5, 6, 7), mask=(True, False, True))
    record = Group(prompt=Prompt(content="p"), completions=(Completion(content="c"),))
    batch = pack([TokenGroup(prompt=(1,), completions=(tokens,), group=record), group((2,), (8,))])
    assert batch.completion_mask.tolist() == [[True, False, True], [True, False, False]]


def test_behaviour_logp_only_when_every_completion_has_it():
    with_logp = group((1,), (2, 3), (4,), logps=[(-0.5, -1.0), (-2.0,)])
    assert pack([with_logp]).behaviour_logp.tolist() == [[-0.5, -1.0], [-2.0, 0.0]]
    assert pack([with_logp, group((1,), (2,))]).behaviour_logp is None


def test_empty_parts_are_refused():
    with pytest.raises(ValueError, match="at least one group"):
        pack([])
    with pytest.raises(ValueError, match="at least one token"):
        pack([group((), (1,))])
    with pytest.raises(ValueError, match="at least one token"):
        pack([group((1,), ())])


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 50))
def test_micro_batches_partition_the_items_within_the_budget(sizes, budget):
    bins = split_by_tokens(sizes, budget)
    assert sorted(i for b in bins for i in b) == list(range(len(sizes)))
    for b in bins:
        assert len(b) == 1 or sum(sizes[i] for i in b) <= budget
    if bins:
        assert sizes[bins[0][0]] == max(sizes), "the longest comes first"
    # First fit: no two bins could have been one.
    loads = [sum(sizes[i] for i in b) for b in bins]
    assert all(a + b > budget for i, a in enumerate(loads) for b in loads[i + 1 :])


def test_split_by_tokens_by_hand():
    assert split_by_tokens([4, 8, 1, 5, 3], 9) == [[1, 2], [3, 0], [4]]
    assert split_by_tokens([100, 1], 10) == [[0], [1]]
    with pytest.raises(ValueError, match="positive"):
        split_by_tokens([1], 0)


def test_a_batch_moves_whole():
    batch = pack([group((1,), (2, 3))]).to("cpu")
    assert torch.equal(batch.ids, torch.tensor([1, 2, 3]))
