"""Whole steps of TRL's other trainers on the tiny network: the same loss and gradient as the method here (extra `bench`).

Of KTO, CPO and its family, ORPO, TPO, SFT and DFT, the reward model, GRPO's losses, RLOO, online DPO, A2PO, GKD, SDPO, IW-OPD.
As in `test_trl_losses`, what is compared is TRL's own code, given a trainer's fields, a batch in its layout and a model's
outputs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from types import MethodType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

from evenhand import methods
from evenhand.train.examples import micro_batches, with_pairs
from evenhand.train.rollouts.experience import Experience
from tests.battery.test_self_distillation import ANSWERS, SEEN, taught
from tests.battery.world import gradients, items_for, logps_of, network
from tests.test_trl_losses import as_trl_calls_it, trl

BETA = 0.3


def laid(rows) -> dict[str, torch.Tensor]:
    """(prompt, completion) pairs, right-padded: ids, attention, and which tokens count."""
    width = max(len(p) + len(c.ids) for p, c in rows)
    ids, attention, counted = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(3))
    for n, (prompt, completion) in enumerate(rows):
        stop = len(prompt) + len(completion.ids)
        ids[n, :stop] = torch.tensor(prompt + completion.ids)
        attention[n, :stop] = 1
        counted[n, len(prompt) : stop] = torch.tensor(completion.mask).long()
    return {"input_ids": ids, "attention_mask": attention, "completion_mask": counted}


def trainer(**fields: Any) -> SimpleNamespace:
    accelerator = MagicMock(device="cpu", num_processes=1, gather=lambda x: x, gather_for_metrics=lambda x: x)
    accelerator.reduce, accelerator.pad_across_processes = lambda x, reduction="sum": x, lambda x, dim, pad_index: x
    return SimpleNamespace(
        accelerator=accelerator, aux_loss_enabled=False, _metrics=defaultdict(lambda: defaultdict(list)), _total_train_tokens=0,
        _tp_size=1, model=MagicMock(training=True), **fields,
    )  # fmt: skip


def compared(model: Any, loss: torch.Tensor, here, *, rtol: float = 1e-5) -> None:
    """Equal loss, and a gradient that is equal up to rounding."""
    loss.backward()
    torch.testing.assert_close(here[0], loss.detach(), rtol=rtol, atol=1e-6, check_dtype=False)
    same_gradient(model, here, rtol=rtol)


def same_gradient(model: Any, here, *, rtol: float = 1e-5) -> None:
    flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(here[1], flat, rtol=0, atol=rtol * float(flat.abs().max()), check_dtype=False)


def step(method, items):
    return gradients(method, micro_batches(items, 60))


def whole(items):
    """Every token of an answer counted."""
    counted = [tuple(replace(c, mask=(True,) * len(c.ids)) for c in i.tokens.completions) for i in items]
    return [replace(i, tokens=replace(i.tokens, completions=row)) for i, row in zip(items, counted, strict=True)]


# ---- pairs without a reference ----------------------------------------------------------------------------------------

CPO = {
    # the method here, its settings, TRL's fields
    "cpo": ({"beta": BETA, "likelihood": 1.0}, {"loss_type": "sigmoid", "cpo_alpha": 1.0}),
    "simpo": ({"beta": 2.0, "margin": 0.5}, {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5}),
    "cpo_simpo": (
        {"beta": 2.0, "margin": 0.5, "likelihood": 0.7},
        {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.5, "cpo_alpha": 0.7},
    ),
    "alphapo": (
        {"beta": 2.0, "alpha": 0.25, "margin": 0.1}, {"loss_type": "simpo", "beta": 2.0, "simpo_gamma": 0.1, "alpha": 0.25},
    ),
    "slic": ({"margin": 1 / BETA, "likelihood": 0.0}, {"loss_type": "hinge"}),
}  # fmt: skip


def pair_batch(items) -> dict[str, torch.Tensor]:
    """Chosen and rejected answers apart, labels with -100 where nothing counts, as CPO's and ORPO's collator lays them."""
    out = {}
    for side, name in enumerate(("chosen", "rejected")):
        rows = laid([(i.tokens.prompt, i.tokens.completions[i.pairs[0][side]]) for i in items])
        labels = rows["input_ids"].masked_fill(rows["completion_mask"] == 0, -100)
        out |= {
            f"{name}_input_ids": rows["input_ids"],
            f"{name}_attention_mask": rows["attention_mask"],
            f"{name}_labels": labels,
        }
    return out


def bound(kind: Any, **fields: Any) -> SimpleNamespace:
    """The trainer's own methods over fields of ours."""
    made = trainer(is_encoder_decoder=False, pad_token_id=0, padding_value=0, **fields)
    for name in ("concatenated_forward", "cpo_loss", "odds_ratio_loss", "get_batch_loss_metrics"):
        if hasattr(kind, name):
            setattr(made, name, MethodType(getattr(kind, name), made))
    made.concatenated_inputs, made.get_batch_logps = kind.concatenated_inputs, kind.get_batch_logps
    return made


def plain(policy: Any):
    """The plain network as a trainer calls it."""
    return lambda ids, attention_mask, use_cache: policy.hf(input_ids=ids, attention_mask=attention_mask)


@pytest.mark.parametrize("name", CPO)
def test_a_step_of_cpo_s_trainer(name):
    from trl.experimental.cpo import CPOTrainer

    settings, fields = CPO[name]
    method = methods.build(name, settings, steps=6, max_tokens=8)
    model, items = network(method), items_for(method)
    defaults = {"alpha": 0.0, "beta": BETA, "cpo_alpha": 0.0, "label_smoothing": 0.0, "simpo_gamma": 0.0}
    theirs = bound(CPOTrainer, **{**defaults, **fields})
    loss, _ = theirs.get_batch_loss_metrics(plain(model), pair_batch(items))
    scale = BETA if name == "slic" else 1.0  # a hinge at 1 on beta times the margin is beta times one at 1 / beta
    here = step(method, items)
    compared(model, loss, (here[0] * scale, here[1] * scale))


def test_a_step_of_orpo_s_trainer():
    """It learns the prompt too: with prompts of one token, which nothing predicts, there is none to learn."""
    from trl.experimental.orpo import ORPOTrainer

    method = methods.build("orpo", {"weight": BETA}, steps=6, max_tokens=8)
    items = [replace(i, tokens=replace(i.tokens, prompt=i.tokens.prompt[:1])) for i in whole(items_for(method))]
    model = network(method)
    loss, _ = bound(ORPOTrainer, beta=BETA).get_batch_loss_metrics(plain(model), pair_batch(items))
    compared(model, loss, step(method, items), rtol=1e-4)  # its odds are in float32


@pytest.mark.parametrize(("per", "told"), [("sum", "sigmoid"), ("mean", "tpo-l")])
def test_a_step_of_tpo_s_trainer(per, told):
    """Of three ranked answers the best is its `reference`, the second its chosen and the last its rejected one."""
    from trl.experimental.tpo import TPOTrainer

    method = methods.build("tpo", {"beta": BETA, "likelihood": 0.7, "per": per, "margin": 0.5}, steps=6, max_tokens=8)
    items = [with_pairs(i.only([0, 1, 2])) for i in items_for(method)]
    scores = [i.tokens.group.scores for i in items]
    places = [sorted(range(3), key=lambda n, row=row: -row[n]) for row in scores]
    rows = [(i.tokens.prompt, i.tokens.completions[p[side]]) for side in (1, 2, 0) for i, p in zip(items, places, strict=True)]
    model = network(method)
    theirs = trainer(loss_type=told, beta=BETA, tpo_alpha=0.7, tpo_l_gamma=0.5, label_smoothing=0.0)
    loss = TPOTrainer._compute_loss(theirs, lambda use_cache, **inputs: model.hf(**inputs), laid(rows), False)
    compared(model, loss, step(method, items))


@pytest.mark.parametrize(("name", "told"), [("sft", "nll"), ("dft", "dft")])
def test_a_step_of_sft_s_trainer(name, told):
    method = methods.build(name, {}, steps=6, max_tokens=8)
    model, items = network(method), items_for(method)
    batch = laid([(i.tokens.prompt, i.tokens.completions[0]) for i in items])
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
    told_of = as_trl_calls_it(model)

    def call(**inputs: Any) -> SimpleNamespace:
        return SimpleNamespace(**vars(told_of(**inputs)), label_mask=inputs["labels"][:, 1:] != -100)

    theirs = trainer(compute_loss_func=None, label_smoother=None, get_tp_size=lambda: 1)
    theirs.args = SimpleNamespace(loss_type=told, average_tokens_across_devices=False, max_length=None)
    theirs.accelerator.parallelism_config = None
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}
    compared(model, trl.SFTTrainer.compute_loss(theirs, call, inputs), step(method, items))


# ---- single answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["kto", "apo_zero_unpaired"])
def test_a_step_of_kto_s_trainer(name):
    """The answers to other prompts that its reference point is taken from are those that our step holds."""
    weights = {"weight_desirable": 1.5, "weight_undesirable": 0.75} if name == "kto" else {}
    method = methods.build(name, {"beta": BETA, **weights}, steps=6, max_tokens=8)
    model, frozen = network(method), network(method, seed=5)
    items = items_for(method)
    items = [replace(i, per_token={"ref_logp": r}) for i, r in zip(items, logps_of(frozen, items), strict=True)]
    own, others = ([i for i in items if i.denominator_only is only] for only in (False, True))
    batch = laid([(i.tokens.prompt, i.tokens.completions[0]) for i in own])
    batch |= {"label": torch.tensor([i.tokens.group.scores[0] > 0 for i in own])}
    if name == "kto":
        batch |= {f"KL_{k}": v for k, v in laid([(i.tokens.prompt, i.tokens.completions[0]) for i in others]).items()}
    theirs = trainer(
        calculate_KL=name == "kto", precompute_ref_logps=False, ref_model=as_trl_calls_it(frozen), beta=BETA, loss_type=name,
        desirable_weight=weights.get("weight_desirable", 1.0), undesirable_weight=weights.get("weight_undesirable", 1.0),
        args=SimpleNamespace(gradient_checkpointing_kwargs=None),
    )  # fmt: skip
    theirs._compute_kl_logps = MethodType(trl.KTOTrainer._compute_kl_logps, theirs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trl.trainer.kto_trainer.is_peft_model", lambda model: False)
        call = as_trl_calls_it(model)
        loss = trl.KTOTrainer._compute_loss(theirs, lambda **k: call(**k), batch, False)
    compared(model, loss, step(method, items), rtol=1e-4)


def test_a_step_of_the_reward_model_s_trainer():
    method = methods.build("reward_model", {"centring": 0.05}, steps=6, max_tokens=8)
    model, items = network(method), items_for(method)
    batch = laid([(i.tokens.prompt, i.tokens.completions[i.pairs[0][side]]) for side in (0, 1) for i in items])
    last = batch["attention_mask"].sum(-1) - 1

    def scores(input_ids, attention_mask, **_: Any) -> SimpleNamespace:
        """The classifier's own score at each row's last token, whatever its padding token is."""
        hidden = model.hf.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return SimpleNamespace(logits=model.hf.score(hidden)[torch.arange(len(last)), last])

    theirs = trainer(args=SimpleNamespace(center_rewards_coefficient=0.05))
    loss = trl.RewardTrainer.compute_loss(theirs, scores, {k: batch[k] for k in ("input_ids", "attention_mask")})
    compared(model, loss, step(method, items), rtol=1e-4)


# ---- policy gradients -------------------------------------------------------------------------------------------------

CLIP = {"low": 0.2, "high": 0.28}
GRPO = {
    # TRL's loss: the method here, its settings, TRL's fields
    "grpo": ("grpo", {**CLIP, "kl": 0.04}, {"beta": 0.04}),
    "grpo, two-sided": ("grpo", {**CLIP, "kl": 0.0, "dual_clip": 1.5}, {"delta": 1.5}),
    "grpo, unbiased k3": ("grpo", {**CLIP, "kl": 0.04, "kl_estimator": "k3_ratio"}, {"beta": 0.04, "unbiased": True}),
    "dr_grpo": ("dr_grpo", CLIP, {}),
    "dapo": ("dapo", {**CLIP}, {}),
    "dapo, highest entropy": ("top_entropy", {**CLIP, "share": 0.4}, {"top_entropy_quantile": 0.4}),
    "grpo, whole answers": ("gspo", CLIP, {"importance_sampling_level": "sequence"}),
    "cispo": ("cispo", {"low": 1.0, "high": 0.3}, {"epsilon_high": 1.3}),
    "sapo": ("sapo", {"tau": 1.0, "tau_negative": 1.05}, {}),
    "vespo": ("vespo", {"k": 2.0, "fall": 3.0, "k_negative": 3.0, "fall_negative": 2.0}, {}),
    "luspo": ("luspo", CLIP, {"importance_sampling_level": "sequence"}),
}


def rollout(name: str, settings: dict[str, Any]):
    """The method and a step's items, every token counted: old log-probs near the policy's own, so that some are clipped."""
    method = methods.build(name, {"updates": 2, **settings}, steps=6, max_tokens=8)
    items = whole(items_for(method))
    generator = torch.Generator().manual_seed(0)
    near = [
        tuple(row + 0.3 * torch.randn(row.shape, generator=generator) for row in rows)
        for rows in logps_of(network(method), items)
    ]
    return method, [
        replace(i, per_token={**i.per_token, "old_logp": r, "behaviour_logp": r}) for i, r in zip(items, near, strict=True)
    ]


@pytest.mark.parametrize("told", GRPO)
def test_a_step_of_grpo_s_trainer(told):
    name, settings, changed = GRPO[told]
    method, items = rollout(name, settings)
    model = network(method)
    rows = [(i, n) for i in items for n in range(len(i.tokens.completions))]
    laid_out = left_and_right(rows)
    pad = torch.nn.utils.rnn.pad_sequence
    inputs = {
        **laid_out,
        "advantages": torch.tensor([i.per_completion["advantage"][n] for i, n in rows]),
        "old_per_token_logps": pad([i.per_token["old_logp"][n] for i, n in rows], batch_first=True),
        "ref_per_token_logps": pad([i.per_token["ref_logp"][n] for i, n in rows], batch_first=True),
        "num_items_in_batch": laid_out["completion_mask"].sum(),
    }
    fields = {
        "beta": 0.0, "top_entropy_quantile": 1.0, "off_policy_mask_threshold": None, "importance_sampling_level": "token",
        "epsilon_low": CLIP["low"], "epsilon_high": CLIP["high"], "use_vllm": False, "max_completion_length": 8,
        "current_gradient_accumulation_steps": 1, "_entropy_bonus_enabled": False, "loss_type": told.split(",")[0],
    }  # fmt: skip
    args = SimpleNamespace(
        use_bias_correction_kl=changed.get("unbiased", False),
        delta=changed.get("delta"), sapo_temperature_pos=1.0, sapo_temperature_neg=1.05, steps_per_generation=1,
        vespo_k_pos=2.0, vespo_lambda_pos=3.0, vespo_k_neg=3.0, vespo_lambda_neg=2.0,
    )  # fmt: skip
    theirs = trainer(args=args, **{**fields, **{k: v for k, v in changed.items() if k not in ("delta", "unbiased")}})
    theirs._get_per_token_logps_and_entropies = lambda *a, **k: (*told_by(model, laid_out), None)
    theirs.get_high_entropy_mask = MethodType(trl.GRPOTrainer.get_high_entropy_mask, theirs)
    theirs.get_gamma_weights = trl.GRPOTrainer.get_gamma_weights
    compared(model, trl.GRPOTrainer._compute_loss(theirs, model, inputs), step(method, items), rtol=1e-4)


def test_a_step_of_rloo_s_trainer():
    """On the policy's own samples TRL's ratio of whole answers is 1, where its gradient is the log-prob's; the loss is another
    number, the mean advantage."""
    method = methods.build("rloo", {}, steps=6, max_tokens=8)
    model, items = network(method), whole(items_for(method))
    rows = [(i, n) for i in items for n in range(len(i.tokens.completions))]
    laid_out, own = left_and_right(rows), logps_of(network(method), items)
    inputs = {
        **laid_out,
        "advantages": torch.tensor([i.per_completion["advantage"][n] for i, n in rows]),
        "old_logps": torch.stack([row.double().sum() for answers in own for row in answers]),
    }
    theirs = trainer(epsilon_low=0.2, epsilon_high=0.2)
    theirs._get_per_token_logps_and_entropies = lambda *a, **k: (*told_by(model, laid_out), None)
    loss = trl.RLOOTrainer._compute_loss(theirs, model, inputs)
    assert float(loss.detach()) == pytest.approx(-float(inputs["advantages"].mean()), abs=1e-5)
    loss.backward()
    same_gradient(model, step(method, items), rtol=1e-4)


@pytest.mark.parametrize(("name", "settings", "told"), [
    ("online_dpo", {"beta": BETA}, "sigmoid"), ("online_ipo", {"tau": BETA}, "ipo"),
])  # fmt: skip
def test_a_step_of_online_dpo_s_trainer(name, settings, told):
    """Two answers to every prompt: the better one of each pair is found by their rewards, by its own code as by ours."""
    from trl.experimental.online_dpo import OnlineDPOTrainer

    method = methods.build(name, {"completions_per_prompt": 2, **settings}, steps=6, max_tokens=8)
    model, items = network(method), whole(items_for(method))
    rows = [(i, n) for n in (0, 1) for i in items]
    laid_out, frozen = left_and_right(rows), object()
    ref = torch.nn.utils.rnn.pad_sequence([i.per_token["ref_logp"][n] for i, n in rows], batch_first=True)
    rewards = torch.tensor([i.tokens.group.scores[n] for i, n in rows])
    theirs = trainer(
        args=SimpleNamespace(
            use_vllm=False, missing_eos_penalty=None, loss_type=told, torch_empty_cache_steps=None, optim="adamw_torch", n_gpu=1,
            gradient_accumulation_steps=1,
        ),
        beta=BETA, ref_model=frozen, reward_funcs=None, eos_token_ids=[0], stats=defaultdict(list),
        state=SimpleNamespace(global_step=1), processing_class=MagicMock(),
    )  # fmt: skip
    theirs.accelerator.backward = lambda loss, **_: loss.backward()
    theirs._generate = lambda *_: (
        *(laid_out[k] for k in ("prompt_ids", "prompt_mask", "completion_ids", "completion_mask")),
        None,
    )
    theirs._forward = lambda network, *_: ref if network is frozen else told_by(model, laid_out)[0]
    theirs._calculate_rewards_from_functions = lambda **_: rewards
    theirs.model = MagicMock(training=True)
    loss = OnlineDPOTrainer.training_step(theirs, MagicMock(), {"prompt": [i.tokens.group.prompt.text for i in items]})
    here = step(method, items)
    torch.testing.assert_close(here[0], loss, rtol=1e-4, atol=1e-6, check_dtype=False)
    same_gradient(model, here, rtol=1e-4)


def left_and_right(rows) -> dict[str, torch.Tensor]:
    """Prompts padded on the left, completions on the right, as GRPO's trainer has them."""
    wide = max(len(i.tokens.prompt) for i, _ in rows)
    long = max(len(i.tokens.completions[n].ids) for i, n in rows)
    found = {k: torch.zeros(len(rows), w, dtype=torch.long) for k, w in
             (("prompt_ids", wide), ("prompt_mask", wide), ("completion_ids", long), ("completion_mask", long))}  # fmt: skip
    for at, (item, n) in enumerate(rows):
        prompt, answer = item.tokens.prompt, item.tokens.completions[n].ids
        found["prompt_ids"][at, wide - len(prompt) :], found["prompt_mask"][at, wide - len(prompt) :] = torch.tensor(prompt), 1
        found["completion_ids"][at, : len(answer)], found["completion_mask"][at, : len(answer)] = torch.tensor(answer), 1
    return found


def told_by(model: Any, rows: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-prob and entropy at every token of the completions, by the plain network."""
    ids = torch.cat([rows["prompt_ids"], rows["completion_ids"]], 1)
    mask = torch.cat([rows["prompt_mask"], rows["completion_mask"]], 1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model.hf(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, rows["prompt_ids"].shape[1] - 1 : -1]
    logp = logits.log_softmax(-1)
    chosen = logp.gather(-1, rows["completion_ids"][..., None])[..., 0]
    counted = rows["completion_mask"].bool()
    return torch.where(counted, chosen, 0.0), torch.where(counted, -(logp.exp() * logp).sum(-1), 0.0)


def test_a_step_of_a2po_s_trainer():
    """Its second stage: the answers' rewards less the soft value are given to both."""
    from trl.experimental.a2po import A2POTrainer

    method = methods.build("a_star_po", {"beta": BETA}, steps=6, max_tokens=8)
    model, items = network(method), whole(items_for(method))
    rows = [(i, n) for i in items for n in range(len(i.tokens.completions))]
    theirs = trainer(args=SimpleNamespace(beta2=BETA))
    theirs._get_sequence_logps = lambda *_: told_by(model, left_and_right(rows))[0].sum(-1)
    inputs = {
        **dict.fromkeys(("input_ids", "attention_mask", "logits_to_keep")), "v_star": torch.tensor(0.25),
        "ref_logps": torch.stack([i.per_token["ref_logp"][n].double().sum() for i, n in rows]),
        "rewards": torch.tensor([i.per_completion["advantage"][n] + 0.25 for i, n in rows], dtype=torch.float64),
    }  # fmt: skip
    compared(model, A2POTrainer.compute_loss(theirs, model, inputs), step(method, items))


# ---- a teacher ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.0, 0.3, 0.5, 1.0])
def test_a_step_of_gkd_s_trainer(beta):
    from trl.experimental.gkd import GKDTrainer

    method = methods.build("gkd", {"beta": beta}, steps=6, max_tokens=8)
    model, items = network(method), items_for(method)
    batch = laid([(i.tokens.prompt, i.tokens.completions[0]) for i in items])
    labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)[:, 1:]
    asked = {name: batch[name] for name in ("input_ids", "attention_mask")}
    own, told = (policy.hf(**asked).logits[:, :-1] for policy in (model, model.frozen))
    compared(model, GKDTrainer.generalized_jsd_loss(own, told, labels, beta), step(method, items))


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_the_loss_of_sdpo_s_trainer_over_the_whole_vocabulary(beta):
    """What its teacher reads before each answer is as in our own test of it; every token of the step weighs alike."""
    from trl.experimental.sdpo.loss_utils import compute_full_logit_self_distillation_loss as theirs

    method = methods.build("exact_self_distillation", {"beta": beta}, steps=6, max_tokens=8)
    model = network(method)

    def logits(policy: Any, prompt: list[int], answer: tuple[int, ...]) -> torch.Tensor:
        return policy.hf(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]

    rows = [
        theirs(logits(model, [3, 4], answer), logits(model.frozen, SEEN[n], answer), distillation_alpha=beta)
        for n, answer in ANSWERS.items()
    ]
    compared(model, torch.cat(rows).mean(), step(method, taught(0.0, 2.0, 1.0)))


@pytest.mark.parametrize("early", [0.0, 0.5])
def test_a_step_of_iw_opd_s_trainer(early):
    """At early = 0 on-policy distillation by sampled tokens; the rollout's weights are not quite those that learn."""
    from trl.experimental.iw_opd import IWOPDTrainer

    method = methods.build("on_policy_distillation", {"early": early}, steps=6, max_tokens=8)
    model, items = network(method), whole(items_for(method))
    experience = Experience(
        examples=items, reward=torch.zeros(len(items), 3), kl_coefficient=0.0, kl_estimator="k1", memory={}, seed=0, rollout=0
    )
    rows = [(i, n) for i in items for n in range(len(i.tokens.completions))]
    batch = laid([(i.tokens.prompt, i.tokens.completions[n]) for i, n in rows])
    ids, counted = batch["input_ids"], batch["completion_mask"].bool()[:, 1:]
    told, sampled = torch.zeros(2, *counted.shape)
    for found, name in ((told, "ref_logp"), (sampled, "old_logp")):
        found[counted] = torch.cat([i.per_token[name][n] for i, n in rows])
    theirs = trainer(temperature=1.0, iw_opd_gamma=early, iw_opd_epsilon=1e-8)
    logits = model.hf(input_ids=ids, attention_mask=batch["attention_mask"]).logits[:, :-1]
    labels = ids[:, 1:].masked_fill(~counted, -100)
    loss = IWOPDTrainer._compute_iw_opd_loss(theirs, logits, ids[:, 1:], labels, told, sampled)
    compared(model, loss, step(method, method.rollouts.credit(experience)))
