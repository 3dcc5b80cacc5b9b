"""Policy-gradient losses: values, exact zeros of gradients, agreement on-policy, stop-gradients, expectations by enumeration."""

import math

import pytest
import torch
from torch.autograd import grad, gradcheck

from evenhand.core import policy as pg
from evenhand.core import reduce
from evenhand.core.credit import centre, gae, leave_one_out

D64 = torch.float64
MASK = torch.tensor([[True, True, True], [True, False, False]])
LOGP = torch.tensor([[-1.0, -0.5, -2.0], [-0.7, 0.0, 0.0]], dtype=D64)
OLD = torch.tensor([[-1.1, -0.9, -1.5], [-0.9, 0.0, 0.0]], dtype=D64)
ADVANTAGE = torch.tensor([0.8, -1.2], dtype=D64)


def ratios(*rho):
    """log-probs that give these token ratios against old_logp = -1."""
    old = torch.full((len(rho), 1), -1.0, dtype=D64)
    return old + torch.tensor(rho, dtype=D64).log().unsqueeze(-1), old


def slope(loss, logp):
    logp = logp.clone().requires_grad_()
    return grad(loss(logp).sum(), logp)[0]


def reduced(value, reduction, mask=MASK):
    weight, denominator = reduction(mask)
    return (value * weight.to(value)).sum() / denominator


# --- the clipped surrogate --------------------------------------------------------------------------------------------


def test_clipped_value_and_gradient_in_all_six_regions():
    logp, old = ratios(0.5, 1.0, 1.5, 0.5, 1.0, 1.5)
    advantage = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0], dtype=D64)
    loss = pg.clipped(logp, old, advantage, low=0.2, high=0.3)
    torch.testing.assert_close(loss.squeeze(-1), torch.tensor([-0.5, -1.0, -1.3, 0.8, 1.0, 1.5], dtype=D64))
    gradient = slope(lambda x: pg.clipped(x, old, advantage, low=0.2, high=0.3), logp).squeeze(-1)
    torch.testing.assert_close(gradient, torch.tensor([-0.5, -1.0, 0.0, 0.0, 1.0, 1.5], dtype=D64))
    assert gradient[2] == 0  # exactly
    assert gradient[3] == 0


def test_dual_clip_bounds_what_a_bad_token_can_cost():
    logp, old = ratios(1.5, 10.0, 10.0)
    advantage = torch.tensor([-1.0, -2.0, 2.0], dtype=D64)
    loss = pg.dual_clipped(logp, old, advantage, low=0.2, high=0.2, cap=3.0)
    torch.testing.assert_close(loss.squeeze(-1), torch.tensor([1.5, 6.0, -2.4], dtype=D64))
    gradient = slope(lambda x: pg.dual_clipped(x, old, advantage, low=0.2, high=0.2, cap=3.0), logp).squeeze(-1)
    torch.testing.assert_close(gradient, torch.tensor([1.5, 0.0, 0.0], dtype=D64))
    unbounded = pg.dual_clipped(logp, old, advantage, low=0.2, high=0.2, cap=math.inf)
    torch.testing.assert_close(unbounded, pg.clipped(logp, old, advantage, low=0.2, high=0.2))
    with pytest.raises(ValueError, match="cap"):
        pg.dual_clipped(logp, old, advantage, low=0.2, high=0.2, cap=1.0)


def test_an_advantage_per_sequence_never_broadcasts_over_tokens():
    square = torch.zeros(2, 2, dtype=D64)
    expected = torch.tensor([[-0.8, -0.8], [1.2, 1.2]], dtype=D64)
    torch.testing.assert_close(pg.clipped(square, square, ADVANTAGE, low=0.2, high=0.2), expected)
    torch.testing.assert_close(pg.clipped(square, square, ADVANTAGE.unsqueeze(-1), low=0.2, high=0.2), expected)
    torch.testing.assert_close(pg.reinforce(square - 1, ADVANTAGE), -expected)


def test_on_policy_all_surrogates_have_the_same_gradient():
    expected = -ADVANTAGE.unsqueeze(-1) * torch.ones_like(LOGP)
    expected = expected * reduce.sequence_mean(MASK)[0] / 2
    old = LOGP.clone()
    losses = {
        "reinforce": lambda x: pg.reinforce(x, ADVANTAGE),
        "clipped": lambda x: pg.clipped(x, old, ADVANTAGE, low=0.2, high=0.2),
        "dual": lambda x: pg.dual_clipped(x, old, ADVANTAGE, low=0.2, high=0.2, cap=3.0),
        "gspo": lambda x: pg.gspo(x, old, ADVANTAGE, MASK, low=3e-4, high=4e-4),
        "cispo": lambda x: pg.cispo(x, old, ADVANTAGE, low=0.2, high=0.2),
    }
    for name, loss in losses.items():
        found = slope(lambda x, loss=loss: reduced(loss(x), reduce.sequence_mean), LOGP)
        torch.testing.assert_close(found, expected, msg=name, rtol=1e-6, atol=1e-9)


def test_on_policy_value_is_minus_the_mean_advantage():
    value = reduced(pg.clipped(OLD, OLD, ADVANTAGE, low=0.2, high=0.2), reduce.sequence_mean)
    assert value.item() == pytest.approx(-ADVANTAGE.mean().item())


def test_unclipped_ppo_with_monte_carlo_advantages_is_reinforce_with_reward_to_go():
    rewards = torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]], dtype=D64)
    advantage, _ = gae(rewards, torch.zeros_like(rewards), MASK, gamma=1.0, lam=1.0)
    found = slope(lambda x: reduced(pg.clipped(x, LOGP, advantage, low=1.0, high=math.inf), reduce.token_mean), LOGP)
    to_go = torch.tensor([[3.0, 3.0, 2.0], [3.0, 0.0, 0.0]], dtype=D64)
    torch.testing.assert_close(found, -to_go / 4)


def test_dr_grpo_is_rloo_up_to_a_constant():
    reward = torch.tensor([[1.0, 0.0]], dtype=D64)
    limit, group = 7.0, 2
    rloo = slope(lambda x: reduced(pg.reinforce(x, leave_one_out(reward)[0]), reduce.sequence_sum), LOGP)
    dr = slope(
        lambda x: reduced(pg.clipped(x, LOGP, centre(reward)[0], low=0.2, high=0.2), lambda m: reduce.constant(m, limit)), LOGP
    )
    torch.testing.assert_close(dr, rloo * (group - 1) / (group * limit))


# --- sequence ratios --------------------------------------------------------------------------------------------------


def test_gspo_is_the_geometric_mean_ratio_of_each_sequence():
    found = pg.sequence_log_ratio(LOGP, OLD, MASK)
    torch.testing.assert_close(found, torch.tensor([(0.1 + 0.4 - 0.5) / 3, 0.2], dtype=D64))
    loss = pg.gspo(LOGP, OLD, ADVANTAGE, MASK, low=0.1, high=0.1)
    assert loss.shape == LOGP.shape
    expected = torch.tensor([-0.8, 1.2 * math.exp(0.2)], dtype=D64).unsqueeze(-1).expand(2, 3)
    torch.testing.assert_close(loss, expected)


def test_gspo_gradient_is_shared_by_the_tokens_and_zero_outside_the_clip():
    weight = [-0.8 * math.exp(0.0) / 3, 1.2 * math.exp(0.2)]
    found = slope(lambda x: reduced(pg.gspo(x, OLD, ADVANTAGE, MASK, low=0.3, high=0.3), reduce.sequence_mean), LOGP)
    expected = torch.tensor([[weight[0]] * 3, [weight[1], 0, 0]], dtype=D64) / 2
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    positive = torch.tensor([0.8, 1.2], dtype=D64)
    clipped = slope(lambda x: pg.gspo(x, OLD, positive, MASK, low=3e-4, high=4e-4)[1], LOGP)
    assert torch.equal(clipped, torch.zeros_like(LOGP))


def test_gspo_is_grpo_for_sequences_of_one_token():
    one = torch.ones(2, 1, dtype=torch.bool)
    x, old = LOGP[:, :1], OLD[:, :1]
    torch.testing.assert_close(
        pg.gspo(x, old, ADVANTAGE, one, low=0.1, high=0.1), pg.clipped(x, old, ADVANTAGE, low=0.1, high=0.1)
    )


def test_sequence_clipped_uses_the_product_of_token_ratios():
    loss = pg.sequence_clipped(LOGP, OLD, ADVANTAGE, MASK, low=0.5, high=0.5)
    torch.testing.assert_close(loss, torch.tensor([-0.8, 1.2 * math.exp(0.2)], dtype=D64))


# --- constant weights -------------------------------------------------------------------------------------------------


def test_cispo_keeps_the_gradient_of_clipped_tokens():
    logp, old = ratios(0.5, 1.0, 10.0)
    advantage = torch.tensor([1.0, -1.0, 2.0], dtype=D64)
    gradient = slope(lambda x: pg.cispo(x, old, advantage, low=0.2, high=0.5), logp).squeeze(-1)
    torch.testing.assert_close(gradient, torch.tensor([-0.8, 1.0, -3.0], dtype=D64))


def test_topr_imitates_the_good_and_tapers_the_bad():
    behaviour = torch.tensor([-2.0, -2.0, -2.0, -2.0], dtype=D64)
    logp = torch.tensor([-9.0, -2.0 + math.log(0.25), -1.0, -800.0], dtype=D64)
    advantage = torch.tensor([1.0, -1.0, -1.0, -1.0], dtype=D64)
    gradient = slope(lambda x: pg.topr(x, behaviour, advantage), logp)
    torch.testing.assert_close(gradient, torch.tensor([-1.0, 0.25, 1.0, 0.0], dtype=D64))


def test_topr_gradient_is_that_of_its_potential():
    """Positives a S; negatives a rho(S - S_mu), rho(x) = e^x for x <= 0 and 1 + x above: finite differences need a potential."""
    behaviour = torch.tensor([-2.0, -1.0, -3.0], dtype=D64)
    advantage = torch.tensor([0.7, -0.4, -1.3], dtype=D64)

    def potential(s):
        x = s - behaviour
        rho = torch.where(x <= 0, x.clamp(max=0).exp(), 1 + x)
        return -torch.where(advantage >= 0, advantage * s, advantage * rho)

    s = torch.tensor([-1.5, -2.2, -2.5], dtype=D64)
    step = 1e-6
    expected = (potential(s + step) - potential(s - step)) / (2 * step)
    torch.testing.assert_close(slope(lambda x: pg.topr(x, behaviour, advantage), s), expected, rtol=1e-7, atol=1e-9)


def test_advantage_gradients_by_finite_differences():
    smooth = {
        "reinforce": lambda x: pg.reinforce(x, ADVANTAGE),
        "clipped": lambda x: pg.clipped(x, OLD, ADVANTAGE, low=0.15, high=0.25),
        "dual": lambda x: pg.dual_clipped(x, OLD, ADVANTAGE, low=0.15, high=0.25, cap=1.1),
        "gspo": lambda x: pg.gspo(x, OLD, ADVANTAGE, MASK, low=0.1, high=0.1),
        "sequence": lambda x: pg.sequence_clipped(x, OLD, ADVANTAGE, MASK, low=0.5, high=0.5),
    }
    shifted = LOGP + 0.013
    for name, loss in smooth.items():
        assert gradcheck(loss, (shifted.clone().requires_grad_(),)), name


def test_value_loss_takes_the_worse_of_clipped_and_unclipped():
    value = torch.tensor([1.0, 0.3, 2.0], dtype=D64, requires_grad=True)
    old, returns = torch.zeros(3, dtype=D64), torch.tensor([1.0, 1.0, -1.0], dtype=D64)
    loss = pg.value_loss(value, old, returns, clip=0.5)
    torch.testing.assert_close(loss, torch.tensor([0.125, 0.245, 4.5], dtype=D64))
    torch.testing.assert_close(grad(loss.sum(), value)[0], torch.tensor([0.0, -0.7, 3.0], dtype=D64))
    plain = pg.value_loss(value, old, returns, clip=math.inf)
    torch.testing.assert_close(plain, 0.5 * (value - returns) ** 2)


# --- expectations by enumeration --------------------------------------------------------------------------------------

LOGITS = torch.tensor([0.3, -1.1, 0.8, 0.05, -0.4], dtype=D64)
REWARD = torch.tensor([1.0, 0.0, -0.5, 2.0, 0.3], dtype=D64)


@pytest.mark.parametrize("baseline", [0.0, 5.0])
def test_reinforce_is_the_gradient_of_the_mean_reward_whatever_the_baseline(baseline):
    logits = LOGITS.clone().requires_grad_()
    logp = logits.log_softmax(-1)
    surrogate = (logp.detach().exp() * pg.reinforce(logp, REWARD - baseline)).sum()
    expected = grad(-(logits.softmax(-1) * REWARD).sum(), logits)[0]
    torch.testing.assert_close(grad(surrogate, logits)[0], expected)


def test_leave_one_out_is_unbiased_over_all_groups_of_three():
    logits = LOGITS.clone().requires_grad_()
    logp = logits.log_softmax(-1)
    groups = torch.cartesian_prod(*[torch.arange(5)] * 3)
    chance = logp[groups].sum(-1).exp().detach()
    loss = (chance * pg.reinforce(logp[groups], leave_one_out(REWARD[groups])).mean(-1)).sum()
    expected = grad(-(logits.softmax(-1) * REWARD).sum(), logits)[0]
    torch.testing.assert_close(grad(loss, logits)[0], expected)


def test_off_policy_the_unclipped_ratio_has_the_exact_gradient():
    logits = LOGITS.clone().requires_grad_()
    logp = logits.log_softmax(-1)
    old = torch.tensor([0.1, 0.3, 0.2, 0.2, 0.2], dtype=D64).log()
    loss = (old.exp() * pg.clipped(logp, old, REWARD, low=1.0, high=math.inf)).sum()
    expected = grad(-(logits.softmax(-1) * REWARD).sum(), logits)[0]
    torch.testing.assert_close(grad(loss, logits)[0], expected)


# --- extremes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_extreme_log_probs_stay_finite_in_fp32(sign):
    logp = torch.tensor([[0.0, -1e-7, -1e4], [-1e4, -1e3, 0.0]])
    old = torch.tensor([[-1e4, -1.0, 0.0], [0.0, -1e4, -1e4]])
    mask = torch.ones(2, 3, dtype=torch.bool)
    advantage = torch.full((2,), sign)
    losses = {
        "clipped": lambda x: pg.clipped(x, old, advantage, low=0.2, high=0.2),
        "dual": lambda x: pg.dual_clipped(x, old, advantage, low=0.2, high=0.2, cap=3.0),
        "gspo": lambda x: pg.gspo(x, old, advantage, mask, low=0.2, high=0.2),
        "sequence": lambda x: pg.sequence_clipped(x, old, advantage, mask, low=0.2, high=0.2),
        "cispo": lambda x: pg.cispo(x, old, advantage, low=0.2, high=0.2),
        "topr": lambda x: pg.topr(x.sum(-1), old.sum(-1), advantage),
        "reinforce": lambda x: pg.reinforce(x, advantage),
    }
    for name, loss in losses.items():
        assert loss(logp).isfinite().all(), name
        assert slope(loss, logp).isfinite().all(), name
