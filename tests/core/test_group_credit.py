"""Published advantages: literals, what each reduces to, and gradients by listing every outcome."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from evenhand.core import credit, group_credit, pass_at_k
from evenhand.errors import UserError

NAN = math.nan


def tensor(*rows):
    return torch.tensor(rows, dtype=torch.float64)


MIXED = tensor([1, 0, 2, 5], [0.5, 0.5, -1, 3])
RIGHT = tensor([1, 0, 0, 1, 0], [0, 0, 1, 0, 0])
LITERALS = {
    "opo": (group_credit.length_weighted(tensor([1, 0, 2]), tensor([1, 2, 5])), [[-0.375, -1.375, 0.625]]),
    "gpg": (
        group_credit.valid_share(tensor([1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0])),
        [[0] * 4, [2.25, -0.75, -0.75, -0.75], [0] * 4],
    ),
    "gpg, signed": (group_credit.valid_share(tensor([-1, -1], [1, 0])), [[0, 0], [1, -1]]),
    "maxrl": (group_credit.maximum_likelihood(tensor([1, 1, 0, 0], [1, 0, 0, 0])), [[1, 1, -1, -1], [3, -1, -1, -1]]),
    "batch": (group_credit.batch_deviation(tensor([1, 0], [1, 1]), eps=0.0), [[1, -1], [0, 0]]),
    "remax": (group_credit.against(tensor([1, 0.5, NAN], [2, 3, 4]), tensor([0.25], [NAN])), [[0.75, 0.25, 0], [0, 0, 0]]),
    "rf++": (group_credit.whitened_centre(tensor([1, 0]), tensor([1, 3])), [[1.5, -0.5]]),
    "best - second": (pass_at_k.max_minus_second(MIXED), [[0, 0, 0, 3], [0, 0, 0, 2.5]]),
    "pass@2": (pass_at_k.max_at_k(RIGHT, k=2), [[1.5, 0, 0, 1.5, 0], [0, 0, 2, 0, 0]]),
    "pass@3, no baseline": (pass_at_k.inclusive_max_at_k(RIGHT, k=3), [[3, 2.5, 2.5, 3, 2.5], [1.5, 1.5, 3, 1.5, 1.5]]),
    "pass@2, z": (pass_at_k.pass_at_k_z(tensor([1, 0, 0, 0]), k=2), [[1, -1 / 3, -1 / 3, -1 / 3]]),
}  # fmt: skip


@pytest.mark.parametrize("name", LITERALS)
def test_literals(name):
    """rf++: over four tokens the mean is -1/4, the variance (0.75^2 + 3 x 0.25^2) / 3 = 1/4."""
    found, known = LITERALS[name]
    torch.testing.assert_close(found, torch.tensor(known, dtype=torch.float64), rtol=1e-6, atol=1e-7)


REDUCES = {
    "opo at equal lengths": (group_credit.length_weighted(MIXED, 7 * torch.ones_like(MIXED)), credit.centre(MIXED)),
    "gpg where no group is flat": (group_credit.valid_share(MIXED), credit.centre(MIXED)),
    "batch deviation of one prompt": (group_credit.batch_deviation(MIXED[:1]), credit.standardise(MIXED[:1])),
    "maxrl": (group_credit.maximum_likelihood(MIXED[:1]) * MIXED[0].mean(), credit.centre(MIXED[:1])),
    "rf++ baseline of one token each": (
        group_credit.whitened_centre(MIXED, torch.ones_like(MIXED)), credit.whiten(credit.centre(MIXED), MIXED == MIXED),
    ),
    "gdpo of one reward": (
        group_credit.decoupled([MIXED], [2.0]), credit.whiten(2.0 * credit.standardise(MIXED), MIXED == MIXED),
    ),
    "pass@1": (pass_at_k.max_at_k(MIXED, k=1), MIXED),
    "pass@1 without a baseline": (pass_at_k.inclusive_max_at_k(MIXED, k=1), MIXED),
    "max@G": (pass_at_k.max_at_k(MIXED, k=4), 4 * pass_at_k.max_minus_second(MIXED)),
    "pass@1 as a z-score": (pass_at_k.pass_at_k_z(RIGHT, k=1), credit.standardise(RIGHT, ddof=0, eps=0.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", REDUCES)
def test_reduces_to(name):
    torch.testing.assert_close(*REDUCES[name], rtol=1e-5, atol=1e-7)


def listed(advantage, p: float, n: int) -> float:
    """E[mean of A_i d log pi(y_i) / dp] of n answers, each right with probability p."""
    total = 0.0
    for right in itertools.product((0.0, 1.0), repeat=n):
        chance = math.prod(p if r else 1 - p for r in right)
        score = tensor([1 / p if r else -1 / (1 - p) for r in right])
        total += chance * float((advantage(tensor(right)) * score).mean())
    return total


@pytest.mark.parametrize("form", [pass_at_k.max_at_k, pass_at_k.inclusive_max_at_k])
def test_pass_at_k_is_unbiased(form):
    """d/dp [1 - (1 - p)^3] = 3 x 0.49 = 1.47 at p = 0.3."""
    assert listed(lambda r: form(r, k=3), 0.3, 5) == pytest.approx(1.47, abs=1e-12)


@pytest.mark.parametrize(("n", "k", "known"), [(5, 3, 0.98), (6, 4, 0.25), (5, 5, 0.0)])
def test_pass_at_k_training_is_not(n, k, known):
    """Without the deviation, the group's sum has (n - k) / k times the gradient k (1 - p)^(k - 1)."""
    p = 0.3 if n == 5 else 0.5

    def undivided(r):
        passed = 1 - math.comb(n - int(r.sum()), k) / math.comb(n, k)
        return pass_at_k.pass_at_k_z(r, k=k) * math.sqrt(passed * (1 - passed))

    assert n * listed(undivided, p, n) == pytest.approx(known, abs=1e-12)


@pytest.mark.parametrize("p", [0.1, 0.4])
def test_maxrl_climbs_a_truncated_log_likelihood(p):
    """The gradient of p times 1 + (1 - p) + ... + (1 - p)^(N - 2): towards 1 / p."""
    known = sum((1 - p) ** (k - 1) for k in range(1, 6))
    assert listed(group_credit.maximum_likelihood, p, 6) == pytest.approx(known, abs=1e-12)


@pytest.mark.parametrize(("form", "factor"), [(pass_at_k.max_at_k, 1), (pass_at_k.inclusive_max_at_k, 1), (None, 1 / 3)])
def test_the_best_of_k_of_any_rewards_is_unbiased(form, factor):
    """Three answers of rewards -1, 0.5, 2: autograd through the listed expectation of the maximum."""
    reward, k, n = tensor(-1.0, 0.5, 2.0), 2 if form else 3, 3
    logits = tensor(0.2, -0.4, 0.1).requires_grad_()
    share = logits.softmax(0)
    best = sum(share[list(y)].prod() * reward[list(y)].max() for y in itertools.product(range(3), repeat=k))
    known = torch.autograd.grad(best, logits)[0]
    found = torch.zeros(3, dtype=torch.float64)
    for y in itertools.product(range(3), repeat=n):
        rows = reward[list(y)][None]
        advantage = form(rows, k=k)[0] if form else pass_at_k.max_minus_second(rows)[0]
        slope = torch.autograd.grad((advantage * logits.log_softmax(0)[list(y)]).mean(), logits)[0]
        found += share[list(y)].prod().detach() * slope
    torch.testing.assert_close(found, factor * known, rtol=1e-10, atol=1e-12)


EVERY = {
    "opo": lambda r: group_credit.length_weighted(r, torch.arange(1.0, 1 + r.shape[1]).expand_as(r)),
    "rf++": lambda r: group_credit.whitened_centre(r, torch.arange(1.0, 1 + r.shape[1]).expand_as(r)),
    "gpg": group_credit.valid_share, "batch": group_credit.batch_deviation, "maxrl": group_credit.maximum_likelihood,
    "max - second": pass_at_k.max_minus_second, "max@2": lambda r: pass_at_k.max_at_k(r, k=2),
    "z@2": lambda r: pass_at_k.pass_at_k_z(r, k=2), "gdpo": lambda r: group_credit.decoupled([r, r], [1.0, 0.5]),
}  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
def test_an_unscored_answer_gets_nothing_and_changes_nothing(name):
    """The others' advantages are those of the group without it, and a rollout of flat groups has none."""
    advantage = EVERY[name]
    known = tensor([1, 0, 1, 0], [0, 0, 1, 0])
    padded = torch.cat([known, tensor([NAN], [NAN])], 1)
    torch.testing.assert_close(advantage(padded)[:, :4], advantage(known))
    assert (advantage(padded)[:, 4] == 0).all()
    assert (advantage(torch.full((2, 3), NAN, dtype=torch.float64)) == 0).all()
    if name != "max@2":
        assert (advantage(torch.ones(2, 3, dtype=torch.float64)) == 0).all()


@pytest.mark.parametrize(("advantage", "rewards", "words"), [
    (group_credit.maximum_likelihood, [[1.0, -0.5]], "-0.5"),
    (lambda r: pass_at_k.pass_at_k_z(r, k=1), [[0.3, 1.0]], "neither 0 nor 1"),
    (lambda r: pass_at_k.max_at_k(r, k=0), [[0.3, 1.0]], "k is 0"),
])  # fmt: skip
def test_what_a_formula_cannot_take_is_refused(advantage, rewards, words):
    with pytest.raises(UserError, match=words):
        advantage(tensor(*rewards))


def test_gdpo_tells_answers_of_one_sum_apart():
    """Parts (1, 0) and (0, 1) have one sum; their z-scores differ in scale where a part is rarer."""
    first, second = tensor([1, 1, 0, 0]), tensor([0, 0, 1, 0])
    found = group_credit.decoupled([first, second], [1.0, 1.0])[0]
    assert credit.standardise(first + second)[0, 0] == credit.standardise(first + second)[0, 2]
    assert found[2] > found[0] + 0.1


def test_the_optimal_token_baseline_by_hand():
    """Two answers of 2 and 1 tokens: at the first token weights 1 and 3, to-go 1 and 0: 1/4; the second is alone with itself."""
    mask = torch.tensor([[[True, True], [True, False]]])
    to_go = torch.tensor([[[1.0, 1.0], [0.0, 9.0]]], dtype=torch.float64)
    weight = torch.tensor([[[1.0, 2.0], [3.0, 9.0]]], dtype=torch.float64)
    assert group_credit.optimal_token(to_go, weight, mask).tolist() == [[[0.75, 0.0], [-0.25, 0.0]]]
    alike = group_credit.optimal_token(MIXED[..., None], torch.ones_like(MIXED)[..., None], (MIXED == MIXED)[..., None])
    torch.testing.assert_close(alike[..., 0], credit.centre(MIXED))
    nothing = group_credit.optimal_token(to_go, 0 * weight, mask)
    assert nothing.isfinite().all()


def test_the_energy_is_the_squared_norm_of_the_score():
    """d log p_y / d logits = onehot(y) - p: its squared length, by autograd, summed over the tokens so far."""
    logits = torch.tensor([[0.2, -0.4, 0.1], [2.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    logp = logits.log_softmax(-1)
    picked = logp[[0, 1], [2, 0]]
    score = torch.autograd.grad(picked.sum(), logits)[0]
    found = group_credit.score_energy(picked.detach(), (2 * logp.detach()).logsumexp(-1), torch.tensor([True, True]))
    torch.testing.assert_close(found, score.square().sum(-1).cumsum(0))


def test_the_optimal_baseline_has_the_least_variance():
    """Of all constants, listed over the answers of one token: no other gives the gradient estimate a smaller second moment."""
    share, reward = tensor(0.6, 0.3, 0.1), tensor(1.0, 0.0, 3.0)
    energy = 1 - 2 * share + share.square().sum()
    best = (share * energy * reward).sum() / (share * energy).sum()
    second = lambda b: float((share * energy * (reward - b) ** 2).sum())  # noqa: E731
    assert second(best) < min(second(best - 0.05), second(best + 0.05), second((share * reward).sum()))
