"""A tiny float64 policy and hand-made items for every kind of data, with every field an objective may need."""

from __future__ import annotations

import copy
import math
from collections.abc import Hashable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from evenhand.methods import BINARY, PREFERENCES, RATED, Method
from evenhand.models.backbone import Trunk
from evenhand.models.gate import GatedRewardModel, GateSettings
from evenhand.models.heads import CriticPolicy, ValuePolicy, scored
from evenhand.models.load import new_policy
from evenhand.seeding import generator, rng
from evenhand.stages.offline import labelled
from evenhand.train import loop
from evenhand.train.examples import Example, split_zero_advantage, with_pairs
from evenhand.train.logprobs import Rows, read
from evenhand.train.offline import mismatched_items, with_uniform
from evenhand.types import Batch, Completion, Group, Head, Need, Prompt, TokenGroup, Tokens

VOCABULARY = 24
CONFIG = {
    "model_type": "llama", "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip

GATED_OUTPUTS = ("good", "verbosity", "short")
"""Of the frozen reward model whose scores a gate mixes."""


def kind_of(method: Method) -> Hashable:
    """All of a method that decides its network: those of two methods of one kind are the same."""
    heads = (method.network, method.outputs, method.head_power, method.gate)
    return (*heads, method.compares_exactly, method.divergence)


def network(method: Method, seed: int = 0, config: Mapping[str, Any] = CONFIG) -> Trunk:
    """A fresh tiny network with the method's head, in float64: a copy of the first of its kind, a fifth of the work."""
    made = (kind_of(method), seed, *config.items())
    if made not in _FIRST:
        _FIRST[made] = _new_network(method, seed, config)
    return copy.deepcopy(_FIRST[made])


_FIRST: dict[Hashable, Trunk] = {}


def _new_network(method: Method, seed: int, config: Mapping[str, Any]) -> Trunk:
    if method.network == "reward":
        from transformers import AutoConfig, AutoModelForSequenceClassification

        named = {k: v for k, v in config.items() if k != "model_type"}
        torch.manual_seed(seed)
        outputs = GATED_OUTPUTS if method.gate is not None else method.outputs
        labels = {"id2label": dict(enumerate(outputs))} if outputs else {"num_labels": 1}
        config = AutoConfig.for_model(config["model_type"], **named, **labels, pad_token_id=0)
        made = scored(AutoModelForSequenceClassification.from_config(config), seed, power=method.head_power)
        return (made if method.gate is None else gated(made.hf, method.gate, seed)).double()
    policy = new_policy(config, seed=seed, device="cpu").double()
    if method.network in ("value", "critic"):
        policy = valued(policy.hf, new_policy(config, seed=seed + 10, device="cpu").double().hf, method.network, seed)
    if not method.compares_exactly:
        return policy
    return policy.compared_to(new_policy(config, seed=seed + 20, device="cpu").double(), method.measure)


def gated(hf: torch.nn.Module, gate: GateSettings, seed: int) -> GatedRewardModel:
    """A small gate that tells prompts apart, with a penalty that takes something off."""
    model = GatedRewardModel(hf, replace(gate, hidden=8, layers=1, temperature=1.0), seed)
    with torch.no_grad():
        for parameter in model.gate.parameters():
            parameter.normal_(std=0.3, generator=generator("gate", seed))
    model.set_penalty([0.25, 0.0, 0.5])
    return model


def rated(item: Example, method: Method) -> Example:
    """The item's answers with ratings between an attribute's lowest and highest, by their ids; every third is missing."""
    group, parts = item.tokens.group, {}
    for k, (name, (low, high)) in enumerate(method.objective.attributes.items()):
        numbers = [sum(c.ids) + 7 * k for c in item.tokens.completions]
        parts[name] = tuple(math.nan if n % 3 == 0 else low + (high - low) * (n % 5) / 4 for n in numbers)
    return replace(item, tokens=replace(item.tokens, group=replace(group, parts=parts)))


def valued(hf: torch.nn.Module, critic: torch.nn.Module, kind: str, seed: int) -> ValuePolicy:
    """A policy with a value head that says something, on its own states or on a critic's; it stays fp32, as in training."""
    policy = ValuePolicy(hf) if kind == "value" else CriticPolicy(hf, critic)
    with torch.no_grad():
        policy.value_head.weight.normal_(generator=generator("value", seed))
    return policy


def gradients(method: Method, batches: list[Batch], temperature: float = 1.0, *, dtype: torch.dtype = torch.float64):
    """Loss, flat gradient and metrics of one optimizer step, from a fresh network."""
    model = network(method) if dtype == torch.float64 else network(method).to(dtype)
    loss, metrics = loop.accumulate(model, method.objective, batches, temperature)
    grads = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in model.parameters()]
    return loss, torch.cat(grads), metrics


def same(a, b) -> None:
    """Equal loss and equal gradient."""
    torch.testing.assert_close(a[0], b[0], rtol=1e-6, atol=1e-7, check_dtype=False)
    torch.testing.assert_close(a[1], b[1], rtol=1e-5, atol=1e-7, check_dtype=False)


def items_for(method: Method, *, prompts: int = 5, seed: int = 0) -> list[Example]:
    """Items as the method's source would make them: labels, pairs or credited rollouts, with reference and old log-probs."""
    draw = rng("battery", seed)
    online = method.rollouts is not None and Need.ADVANTAGE in method.provides
    k = 3 if online else 2 if method.data == PREFERENCES or (method.rollouts and Need.PAIRS in method.provides) else 1
    k = 4 if method.data == PREFERENCES and Need.SCORE in method.objective.needs else k  # rated answers, all at once
    items = [drawn_item(draw, k, i) for i in range(prompts)]
    items = [_with_fields(i, method, draw, online) for i in items]
    if Need.PAIRS in method.objective.needs or method.data == PREFERENCES:
        items = [with_pairs(i) for i in items]
    if method.data == RATED:
        return [labelled(rated(i, method), method) for i in items]
    if method.label_baseline is not None or method.data == BINARY or Need.SCORE in method.objective.needs:
        items = [labelled(i, method) for i in items]
    if Need.OPTIMISM in method.objective.needs:
        items = [replace(i, per_completion={**i.per_completion, "optimism": (1.0, 0.0)}) for i in items]
    if Need.GIVEN in method.objective.needs:
        items = [replace(i, per_completion={**i.per_completion, "given": (0.0, 0.0, 1.0)}) for i in items]
    if Need.UNIFORM in method.objective.needs:
        items = with_uniform(items, seed)
    if Need.MISMATCHED in method.objective.needs:
        items += mismatched_items(items, reference_of(method))
    if method.skips_zero_advantage:
        items = [piece for item in items for piece in split_zero_advantage(item)]
    return items


def reference_of(method: Method):
    frozen = network(replace(method, network="policy"), seed=1)

    return partial(logps_of, frozen)


def logps_of(model: Trunk, items: list[Example], *, temperature: float = 1.0) -> Rows:
    """A model's log-prob of every token of the items."""
    heads = frozenset({Head.LOGP})
    return read(model, items, heads, tokens_per_microbatch=1000, temperature=temperature, device="cpu")[Head.LOGP]


def drawn_item(draw, k: int, number: int) -> Example:
    prompt = tuple(int(t) for t in draw.integers(1, VOCABULARY, size=draw.integers(1, 7)))
    completions = []
    for _ in range(k):
        ids = tuple(int(t) for t in draw.integers(1, VOCABULARY, size=draw.integers(1, 6)))
        mask = tuple(bool(m) for m in draw.random(len(ids)) < 0.85)
        mask = mask if any(mask) else (True,) * len(ids)
        completions.append(Tokens(ids=ids, mask=mask))
    scores = tuple(float(s) for s in draw.permutation(k)) if k > 1 else (float(number % 2),)
    texts = tuple(Completion(content=str(c.ids)) for c in completions)
    group = Group(prompt=Prompt(content=f"prompt {number}"), completions=texts, scores=scores)
    return Example(tokens=TokenGroup(prompt=prompt, completions=tuple(completions), group=group))


def _with_fields(item: Example, method: Method, draw, online: bool) -> Example:
    lengths = [len(c.ids) for c in item.tokens.completions]
    rows = lambda scale: tuple(torch.tensor(draw.normal(-2.0, scale, size=n), dtype=torch.float32) for n in lengths)  # noqa: E731
    per_token = {"ref_logp": rows(0.5)}
    if Need.OLD_LOGP in method.objective.needs:
        per_token |= {"old_logp": rows(0.5)}
    if not online:
        return replace(item, per_token=per_token)
    per_token |= {"old_logp": rows(0.5), "behaviour_logp": rows(0.5), "value": rows(1.0), "returns": rows(1.0)}
    if not method.rollouts.credit.per_completion:
        scores = {"score": item.tokens.group.scores}
        return replace(item, per_token={**per_token, "token_advantage": rows(1.0)}, per_completion=scores)
    advantage = tuple(float(a) for a in draw.normal(size=len(lengths)))
    advantage = (0.0, *advantage[1:])  # one completion without a gradient
    return replace(item, per_token=per_token, per_completion={"advantage": advantage})
