"""One whole step of TRL's own `DPOTrainer` on the tiny network: the same loss and the same gradient as the method here has.

Runs where TRL is installed (the extra `bench`). TRL computes the loss from its trainer's fields and a model's outputs; both are
given here, so that what is compared is TRL's code and nothing written for the test.
"""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from evenhand import methods
from evenhand.train.examples import micro_batches
from tests.battery.world import gradients, items_for, logps_of, network

trl = pytest.importorskip("trl")
BETA = 0.3
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # what TRL is told: the method here, its settings, TRL's fields
    "sigmoid": ("dpo", {}, {}),
    "hinge": ("rso_hinge", {}, {}),
    "ipo": ("ipo_mean", {"tau": BETA}, {}),
    "exo_pair": ("exo", {"flip": 0.01}, {"label_smoothing": 0.01}),
    "nca_pair": ("nca_pair", {}, {}),
    "robust": ("robust_dpo", {"flip": 0.1}, {"label_smoothing": 0.1}),
    "bco_pair": ("bco_pair", {}, {}),
    "sppo_hard": ("sppo", {}, {}),
    "aot": ("aot_paired", {}, {}),
    "aot_unpaired": ("aot", {}, {}),
    "apo_zero": ("apo_zero", {}, {}),
    "apo_down": ("apo_down", {}, {}),
    "discopop": ("discopop", {"width": 0.05}, {}),
    "sigmoid_norm": ("dpo_norm", {}, {}),
    "forward_kl": ("f_dpo", {"divergence": "forward_kl"}, {"f_divergence_type": "forward_kl"}),
    "js_divergence": ("f_dpo", {"divergence": "jensen_shannon"}, {"f_divergence_type": "js_divergence"}),
    "alpha_divergence": (
        "f_dpo", {"divergence": "alpha", "alpha": 0.3},
        {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.7},
    ),
    "ld_alpha": ("ld_dpo", {"alpha": 0.4}, {"ld_alpha": 0.4}),
    "use_weighting": ("wpo", {}, {"use_weighting": True}),
    "mixed": ("rpo", {"likelihood": 0.5}, {"loss_types": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]}),
    "mpo": ("mpo", {}, {"loss_types": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]}),
}  # fmt: skip

OF_SIGMOID = {"forward_kl", "js_divergence", "alpha_divergence", "ld_alpha", "use_weighting", "mixed", "mpo"}
"""Cases that are told by other fields than `loss_type`."""


def rows_of(items) -> dict[str, torch.Tensor]:
    """All chosen, then all rejected answers with their prompts, right-padded, as TRL's collator lays them."""
    answers = [(i.tokens.prompt, i.tokens.completions[i.pairs[0][side]]) for side in (0, 1) for i in items]
    width = max(len(p) + len(c.ids) for p, c in answers)
    ids, attention, counted = (torch.zeros(len(answers), width, dtype=torch.long) for _ in range(3))
    for n, (prompt, completion) in enumerate(answers):
        stop = len(prompt) + len(completion.ids)
        ids[n, :stop] = torch.tensor(prompt + completion.ids)
        attention[n, :stop] = 1
        counted[n, len(prompt) : stop] = torch.tensor(completion.mask).long()
    return {"input_ids": ids, "attention_mask": attention, "completion_mask": counted}


def as_trl_calls_it(policy: Any):
    """The plain network with the outputs that TRL's fused head gives."""

    def forward(input_ids, attention_mask, labels, **_: Any) -> SimpleNamespace:
        logp = policy.hf(input_ids=input_ids, attention_mask=attention_mask).logits[:, :-1].log_softmax(-1)
        counted = labels[:, 1:] != -100
        chosen = logp.gather(-1, labels[:, 1:].clamp(min=0)[..., None])[..., 0]
        zero = torch.zeros_like(chosen)
        return SimpleNamespace(
            log_probs=torch.where(counted, chosen, zero), log_sum_sq_probs=(2 * logp.detach()).logsumexp(-1), entropy=zero,
            mean_logits=zero, is_top1=zero.bool(),
        )  # fmt: skip

    return forward


def trainer(model: Any, frozen: Any, fields: dict[str, Any]) -> SimpleNamespace:
    accelerator = MagicMock(device="cpu", gather=lambda x: x, gather_for_metrics=lambda x: x)
    defaults = {
        "loss_types": ["sigmoid"], "loss_weights": [1.0], "label_smoothing": 0.0, "f_divergence_type": "reverse_kl",
        "f_alpha_divergence_coef": 1.0, "ld_alpha": None, "use_weighting": False,
    }  # fmt: skip
    return SimpleNamespace(
        model=MagicMock(training=True), accelerator=accelerator, aux_loss_enabled=False, precompute_ref_logps=False, beta=BETA,
        args=SimpleNamespace(gradient_checkpointing_kwargs=None, discopop_tau=0.05), ref_model=as_trl_calls_it(frozen),
        _metrics={"train": defaultdict(list)}, _total_train_tokens=0, _tp_size=1, **{**defaults, **fields},
    )  # fmt: skip


@pytest.mark.parametrize("told", CASES)
def test_a_step_of_trl_is_a_step_here(told, monkeypatch):
    name, settings, fields = CASES[told]
    monkeypatch.setattr("trl.trainer.dpo_trainer.is_peft_model", lambda model: False)
    dtype = torch.float32 if told == "alpha_divergence" else torch.float64  # it knows no other there
    method = methods.build(name, settings if name == "ipo_mean" else {"beta": BETA, **settings}, steps=6, max_tokens=8)
    model, frozen = network(method).to(dtype), network(method, seed=5).to(dtype)
    items = items_for(method)
    rows = logps_of(frozen, items)
    items = [
        type(i)(tokens=i.tokens, per_token={"ref_logp": tuple(x.float() for x in r)}, pairs=i.pairs, margin=i.margin,
                pair_weight=i.pair_weight) for i, r in zip(items, rows, strict=True)
    ]  # fmt: skip
    theirs = trainer(model, frozen, fields if told in OF_SIGMOID else {**fields, "loss_types": [told]})
    loss = trl.DPOTrainer._compute_loss(theirs, as_trl_calls_it(model), rows_of(items), False)
    loss.backward()
    flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in model.parameters()])
    here = gradients(method, micro_batches(items, 60), dtype=dtype)
    torch.testing.assert_close(here[0], loss.detach(), rtol=1e-4, atol=1e-5, check_dtype=False)
    torch.testing.assert_close(here[1], flat, rtol=0, atol=1e-4 * float(flat.abs().max()), check_dtype=False)
