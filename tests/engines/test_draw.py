"""Drawing tokens: frequencies against exact probabilities, truncation, and the edges of the cumulative distribution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from evenhand.engines.draw import Draw, draw_full, uniforms
from evenhand.types import Sampling

CPU = torch.device("cpu")
VOCABULARY = 53  # a prime: blocks need padding


def even_uniforms(count: int) -> torch.Tensor:
    """Midpoints of `count` equal parts of [0, 1): drawing with all of them gives each token its exact share, +- 1."""
    return (torch.arange(count, dtype=torch.float64) + 0.5) / count


def logits_of(seed: int = 0, vocabulary: int = VOCABULARY) -> torch.Tensor:
    return torch.randn(vocabulary, generator=torch.Generator().manual_seed(seed)) * 2


def draw(logits: torch.Tensor, uniform: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    count = uniform.numel()
    return Draw([sampling] * count, CPU)(logits.expand(count, -1), uniform)


def exact(logits: torch.Tensor, sampling: Sampling) -> np.ndarray:
    """The distribution by definition, token by token in plain Python."""
    z = (logits.double() / sampling.temperature).tolist()
    order = sorted(range(len(z)), key=lambda i: -z[i])[: sampling.top_k or len(z)]
    mass = sum(math.exp(z[i]) for i in order)
    kept, total = [], 0.0
    for i in order:
        kept.append(i)
        total += math.exp(z[i]) / mass
        if total >= sampling.top_p:
            break
    weight = {i: math.exp(z[i]) for i in kept}
    return np.array([weight.get(i, 0.0) for i in range(len(z))]) / sum(weight.values())


SAMPLINGS = [
    Sampling(),
    Sampling(temperature=0.5),
    Sampling(temperature=1.7),
    Sampling(top_k=5),
    Sampling(top_p=0.6),
    Sampling(top_p=0.01),
    Sampling(temperature=0.7, top_k=9, top_p=0.8),
    Sampling(top_k=1000, top_p=0.9),
]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("vocabulary", [2, VOCABULARY, 400])
def test_frequencies_and_logp_are_exact(sampling, vocabulary):
    logits, count = logits_of(vocabulary=vocabulary), 20_000
    tokens, logp = draw(logits, even_uniforms(count), sampling)
    want = exact(logits, sampling)
    got = np.bincount(tokens.numpy(), minlength=vocabulary) / count
    np.testing.assert_allclose(got, want, atol=2 / count)
    np.testing.assert_allclose(logp.exp().numpy(), want[tokens.numpy()], rtol=2e-5)


@pytest.mark.parametrize("sampling", SAMPLINGS[:1] + SAMPLINGS[3:5], ids=str)
def test_keyed_numbers_pass_a_chi_square_test(sampling):
    logits, count = logits_of(), 4000
    uniform = torch.tensor([uniforms(11, "prompt", i, 1)[0] for i in range(count)])
    tokens, _ = draw(logits, uniform, sampling)
    want = exact(logits, sampling) * count
    got = np.bincount(tokens.numpy(), minlength=VOCABULARY)
    assert got[want == 0].sum() == 0
    big = want >= 5
    observed = np.append(got[big], got[~big].sum())
    expected = np.append(want[big], want[~big].sum())
    observed, expected = observed[expected > 0], expected[expected > 0]
    assert stats.chisquare(observed, expected).pvalue > 1e-3


def test_rows_are_drawn_each_by_its_own_rule():
    logits = torch.stack([logits_of(i) for i in range(len(SAMPLINGS) + 1)])
    each = [*SAMPLINGS, Sampling(temperature=0)]
    uniform = torch.rand(len(each), dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    tokens, logp = Draw(each, CPU)(logits, uniform)
    for i, sampling in enumerate(SAMPLINGS):
        alone, its_logp = draw(logits[i], uniform[i : i + 1], sampling)
        assert tokens[i] == alone[0]
        assert logp[i] == pytest.approx(its_logp[0].item(), abs=1e-6)
    assert (tokens[-1], logp[-1]) == (logits[-1].argmax(), 0.0)


def test_select_keeps_each_rows_rule():
    each = [Sampling(temperature=0), Sampling(top_k=1), Sampling(temperature=100.0)]
    drawer = Draw(each, CPU)
    drawer.select(torch.tensor([2, 0]))
    logits = logits_of().expand(2, -1)
    tokens, logp = drawer(logits, torch.tensor([0.99, 0.99], dtype=torch.float64))
    assert logp[1] == 0.0
    assert tokens[1] == logits[1].argmax()
    assert logp[0] == pytest.approx(-math.log(VOCABULARY), abs=0.2)


@pytest.mark.parametrize("uniform", [0.0, 1 - 2.0**-53])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=4)], ids=str)
def test_impossible_tokens_are_never_drawn(uniform, sampling):
    logits = torch.full((VOCABULARY,), -torch.inf)
    logits[[7, 30]] = torch.tensor([0.0, 1.0])
    (token,), (logp,) = draw(logits, torch.tensor([uniform], dtype=torch.float64), sampling)
    assert token.item() in (7, 30)
    assert math.isfinite(logp)


def test_a_flat_nucleus_wider_than_the_first_guess_is_found():
    logits = torch.zeros(2000)
    tokens, logp = draw(logits, even_uniforms(2000), Sampling(top_p=0.5))
    assert tokens.unique().numel() in (1000, 1001)
    torch.testing.assert_close(logp, torch.full((2000,), -math.log(1000)), atol=2e-3, rtol=0)


def test_a_large_vocabulary_loses_no_mass():
    vocabulary = 50_257
    logits = torch.zeros(1, vocabulary).expand(3, -1)
    tokens, logp = draw_full(logits, torch.tensor([0.0, 0.5, 1 - 1e-9], dtype=torch.float64))
    assert tokens.tolist() == [0, vocabulary // 2, vocabulary - 1]
    torch.testing.assert_close(logp, torch.full((3,), -math.log(vocabulary)))


def test_uniforms_differ_by_every_part_of_their_key():
    first = uniforms(0, "a", 0, 4)
    for other in (uniforms(1, "a", 0, 4), uniforms(0, "b", 0, 4), uniforms(0, "a", 1, 4)):
        assert not np.isin(other, first).any()


PROBABILITIES = torch.tensor([[0.5, 0.24, 0.16, 0.06, 0.04]])
MIN_P = {
    "off": ({}, [0.5, 0.24, 0.16, 0.06, 0.04]),
    "a tenth of the likeliest": ({"min_p": 0.1}, [0.5, 0.24, 0.16, 0.06, 0.0]),  # 0.05 and more: 0.04 goes
    "a third": ({"min_p": 1 / 3}, [0.5, 0.24, 0.0, 0.0, 0.0]),
    "with top-k": ({"min_p": 0.1, "top_k": 2}, [0.5, 0.24, 0.0, 0.0, 0.0]),
    "with top-p": ({"min_p": 0.1, "top_p": 0.8}, [0.5, 0.24, 0.16, 0.0, 0.0]),
    "of the tempered distribution": ({"min_p": 0.3, "temperature": 0.5}, [0.25, 0.0, 0.0, 0.0, 0.0]),  # 0.0576 / 0.25 < 0.3
}


@pytest.mark.parametrize("case", MIN_P)
def test_min_p_keeps_what_is_likely_enough_beside_the_likeliest(case):
    named, kept = MIN_P[case]
    expected = torch.tensor(kept) / sum(kept)
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    tokens, logp = Draw([Sampling(**named)] * 1000, CPU)(PROBABILITIES.log().expand(1000, -1), uniform)
    torch.testing.assert_close(torch.bincount(tokens, minlength=5) / 1000, expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(logp.exp(), expected[tokens], atol=1e-6, rtol=1e-5)


def test_min_p_looks_no_further_than_it_must_and_leaves_other_rows_alone():
    logits = torch.linspace(8, 0, 2000).repeat(3, 1)
    uniform = torch.tensor([0.1, 0.5, 0.99], dtype=torch.float64)
    each = [Sampling(min_p=0.01), Sampling(), Sampling(top_p=0.9)]
    tokens, logp = Draw(each, CPU)(logits, uniform)
    others = Draw([each[1]] * 3, CPU)(logits, uniform), Draw([each[2]] * 3, CPU)(logits, uniform)
    assert (tokens[1], logp[1]) == (others[0][0][1], others[0][1][1])
    assert (tokens[2], logp[2]) == (others[1][0][2], others[1][1][2])
    assert tokens[0] < 1151  # 8 - log 100 = 3.39 is the logit of the 1,151st
