"""What further methods of pairs reduce to: equal loss and equal gradient of a whole optimizer step on the tiny network."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from evenhand.train import loop
from evenhand.train.examples import micro_batches
from tests.battery.test_reductions import built, one_token, step
from tests.battery.world import items_for, logps_of, network, same

REDUCTIONS = [
    ("gpo", {"shape": "logistic", "beta": 0.2}, "dpo", {"beta": 0.2}),
    ("gpo", {"shape": "hinge", "beta": 0.2}, "rso_hinge", {"beta": 0.2}),
    ("focal_po", {"focus": 0.0}, "dpo", {}),
    ("c2_dpo", {"weight": 0.0}, "dpo", {}),
    ("dpop", {"weight": 0.0, "beta": 0.1}, "dpo", {}),
    ("dpo_shift", {"share": 1.0}, "dpo", {}),
    ("h_dpo", {"alpha": 1.0}, "dpo", {}),
    ("vpo", {"pessimism": 0.0}, "dpo", {}),
    ("mpo", {"preference": 1.0, "quality": 0.0, "likelihood": 0.0}, "dpo", {}),
    ("mpo", {"preference": 0.0, "quality": 1.0, "likelihood": 0.0}, "bco_pair", {"beta": 0.1}),
    ("f_dpo", {"divergence": "reverse_kl"}, "dpo", {}),
    ("cpo", {"likelihood": 0.0, "beta": 0.3}, "local_reward_model", {"beta": 0.3}),
    ("cpo_simpo", {"likelihood": 0.0}, "simpo", {}),
    ("alphapo", {"alpha": 0.0, "beta": 2.0, "margin": 0.5}, "simpo", {}),
    ("rainbow_po", {"mix": 1.0}, "dpo_norm", {}),
    ("ld_dpo", {"alpha": 1.0}, "dpo", {}),
    ("tdpo2", {"alpha": 0.0}, "dpo", {}),
    ("odpo", {"alpha": 0.0}, "dpo", {}),
    ("rebel", {"eta": 2.0}, "ipo", {"tau": 0.25}),
    ("beta_dpo", {"alpha": 0.0, "drop": 0.0}, "dpo", {}),
    ("dr_dpo", {"robustness": 1e7}, "dpo", {}),
    ("alpha_dpo", {"alpha": 0.0, "beta": 2.0, "ratio": 0.25}, "simpo", {}),
    ("rainbow_po", {"mix": 0.0, "beta": 2.0, "margin": 0.25}, "simpo", {}),
]
"""Method, its settings, what it then is."""
OF_ONE_TOKEN = [
    ("dpo_norm", {"beta": 0.2}, "dpo", {"beta": 0.2}),
    ("sam_po", {"beta": 0.2}, "dpo", {"beta": 0.2}),
    ("repo", {"margin": 0.7}, "slic", {"margin": 0.7, "likelihood": 0.0}),
]


@pytest.mark.parametrize(("name", "parameters", "known", "settings"), REDUCTIONS)
def test_reduces_to(name, parameters, known, settings):
    items = items_for(built(name, **parameters))
    same(step(built(name, **parameters), items), step(built(known, **settings), items))


@pytest.mark.parametrize(("name", "parameters", "known", "settings"), OF_ONE_TOKEN)
def test_reduces_for_answers_of_one_token(name, parameters, known, settings):
    items = items_for(built(name))
    same(step(built(name, **parameters), one_token(items)), step(built(known, **settings), one_token(items)))
    assert (step(built(name, **parameters), items)[1] - step(built(known, **settings), items)[1]).abs().max() > 1e-5


@pytest.mark.parametrize("name", sorted({name for name, *_ in REDUCTIONS} - {"odpo"}))  # on plain pairs its gap is 1: dpo
def test_at_its_default_it_is_a_loss_of_its_own(name):
    items = items_for(built(name))
    for known, settings in {(k, tuple(s.items())) for n, _, k, s in REDUCTIONS if n == name}:
        assert (step(built(name), items)[1] - step(built(known, **dict(settings)), items)[1]).abs().max() > 1e-6


def test_one_pair_per_step_leaves_nothing_to_weigh():
    items = items_for(built("dpo"), prompts=1)
    same(step(built("dr_dpo"), items), step(built("dpo"), items))


def test_apo_zero_of_single_answers_is_kto_without_its_reference_point():
    items = items_for(built("apo_zero_unpaired"))
    kto = built("kto")
    flat = [replace(i, per_token=i.per_token) for i in items]
    found, known = step(built("apo_zero_unpaired"), flat), step(kto, flat)  # without mismatched rows z0 is 0
    same(found, known)


def test_the_token_kls_vanish_at_the_reference():
    """policy == reference: tdpo has dpo's loss there, and not its gradient, since the KL's second order is all there is."""
    method = built("tdpo")
    items = items_for(method)
    model = network(method)
    model.compared_to(network(built("dpo")))
    rows = logps_of(model, items)
    own = [replace(i, per_token={**i.per_token, "ref_logp": r}) for i, r in zip(items, rows, strict=True)]
    loss, _ = loop.accumulate(model, method.objective, micro_batches(own, 60))
    assert float(loss) == pytest.approx(math.log(2), abs=1e-6)
