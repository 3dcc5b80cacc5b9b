"""Adapters on small networks: where they begin, what they can become, what learns, and what is refused."""

from __future__ import annotations

import sys
from collections.abc import Hashable

import pytest
import torch
from torch.testing import assert_close

from evenhand import methods
from evenhand.core import matmul
from evenhand.errors import UserError
from evenhand.models import adapter_layers, adapters, checked, decode_products
from evenhand.models.adapter_config import Adapter
from evenhand.models.adapters import attach
from evenhand.models.backbone import Trunk
from evenhand.models.decode import decoder_for
from evenhand.models.evaluation_mode import plainly
from evenhand.models.heads import CriticPolicy, RewardModel, ValuePolicy, scored
from evenhand.models.policy import Policy
from evenhand.train import loop
from evenhand.train.examples import assemble, micro_batches
from evenhand.train.optim import AdamW
from evenhand.types import Head
from tests.battery import variants, world
from tests.models.tiny_networks import a_batch, network

ARCHITECTURES = ["llama", "qwen2", "qwen3_moe", "gemma2", "phi3", "gpt_neox", "opt", "gpt2", "falcon"]
PROMPTS = [[5, 9, 11, 3, 7], [4, 8, 15]]


def moved(model, amount: float = 0.1):
    """The model with everything that learns moved off its start."""
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(amount * torch.randn(p.shape, generator=noise, dtype=torch.float32).to(p.dtype))
    return model


def adapted(kind: str = "llama", **named) -> Policy:
    policy = Policy(network(kind))
    attach(policy, Adapter(**{"rank": 4, "alpha": 8.0, **named}), seed=0)
    return policy


@pytest.mark.parametrize(("kind", "form", "dtype"), [
    *[(kind, "lora", torch.float32) for kind in ARCHITECTURES],
    ("llama", "dora", torch.bfloat16), ("gpt2", "dora", torch.float32), ("qwen2", "dora", torch.float32),
])  # fmt: skip
def test_training_begins_at_the_start_exactly(kind, form, dtype):
    policy, batch = Policy(network(kind).to(dtype)), a_batch()
    before = policy(batch).logp.detach()
    attach(policy, Adapter(form=form, rank=4), seed=0)
    assert torch.equal(policy(batch).logp, before)
    assert not torch.equal(moved(policy)(batch).logp, before)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_full_rank_represents_any_update(kind):
    """With A the identity and B the update over s, W x + s B A x is (W + update) x; GPT-2 stores its weights transposed."""
    policy, plain, batch = Policy(network(kind).double()), Policy(network(kind).double()), a_batch()
    target = {"llama": "mlp.down_proj", "gpt2": "attn.c_proj"}[kind]
    width = {"llama": 48, "gpt2": 32}[kind]
    attach(policy, Adapter(rank=width, alpha=3.0, targets=(target,)), seed=0)
    noise = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, layer in adapter_layers.adapted(policy.hf):
            update = torch.randn(32, width, generator=noise, dtype=torch.float64)
            layer.lora_A["default"].weight.copy_(torch.eye(width))
            layer.lora_B["default"].weight.copy_(update * width / 3.0)
            plain.hf.get_submodule(name).weight.add_(update if kind == "llama" else update.t())
    assert_close(policy(batch).logp, plain(batch).logp, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("rslora", [False, True])
def test_gradients_are_those_of_the_definition(rslora):
    """dA = s B^T dW and dB = s dW A^T, where dW is the gradient of the merged weight in a plain network, in float64."""
    policy, batch = Policy(network("llama").double()), a_batch()
    attach(policy, Adapter(rank=4, alpha=8.0, rslora=rslora), seed=0)
    moved(policy)
    scale = 4.0 if rslora else 2.0
    plain = Policy(network("llama").double())
    layers = dict(adapter_layers.adapted(policy.hf))
    with torch.no_grad():
        for name, layer in layers.items():
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            plain.hf.get_submodule(name).weight.add_(scale * b @ a)
    for model in (policy, plain):
        model(batch).logp.mean().backward()
    for name, layer in layers.items():
        full = plain.hf.get_submodule(name).weight.grad
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        assert_close(a.grad, scale * b.t() @ full, rtol=1e-8, atol=1e-12)
        assert_close(b.grad, scale * full @ a.t(), rtol=1e-8, atol=1e-12)


def test_gradients_of_dora_are_those_of_the_definition():
    """With V = W + s B A and its norms held: dm = rows of dW' V / ||V||, dA = s B^T (m / ||V|| dW'), dB likewise; in float64."""
    policy, plain, batch = Policy(network("llama").double()), Policy(network("llama").double()), a_batch()
    attach(policy, Adapter(form="dora", rank=4, alpha=8.0), seed=0)
    moved(policy)
    parts = {}
    with torch.no_grad():
        for name, layer in adapter_layers.adapted(policy.hf):
            a, b, m = adapter_layers.learned(layer).values()
            weight = plain.hf.get_submodule(name).weight
            v = weight + 2.0 * b @ a
            lengths = (v**2).sum(1, keepdim=True).sqrt()
            weight.copy_(m[:, None] * v / lengths)
            parts[name] = a, b, m, v, lengths
    assert_close(policy(batch).logp, plain(batch).logp, rtol=1e-10, atol=1e-10)
    for model in (policy, plain):
        model(batch).logp.mean().backward()
    for name, (a, b, m, v, lengths) in parts.items():
        full = plain.hf.get_submodule(name).weight.grad
        through = full * m[:, None] / lengths
        assert_close(m.grad, (full * v / lengths).sum(1), rtol=1e-8, atol=1e-12)
        assert_close(a.grad, 2.0 * b.t() @ through, rtol=1e-8, atol=1e-12)
        assert_close(b.grad, 2.0 * through @ a.t(), rtol=1e-8, atol=1e-12)


def test_dora_with_the_lengths_that_its_rows_have_is_an_adapter_without():
    plain, policy, batch = moved(adapted()), adapted(form="dora"), a_batch()
    with torch.no_grad():
        for (_, from_), (_, to) in zip(adapter_layers.adapted(plain.hf), adapter_layers.adapted(policy.hf), strict=True):
            weights = adapter_layers.learned(to)
            for part, weight in adapter_layers.learned(from_).items():
                weights[part].copy_(weight)
            weights["lora_magnitude_vector"].copy_(adapter_layers.merged_weight(from_).norm(dim=1))
    assert_close(policy(batch).logp, plain(batch).logp, rtol=1e-6, atol=1e-6)


def test_a_row_of_zeros_stays_one_and_nothing_becomes_nan():
    policy = Policy(network("llama"))
    target = "model.layers.0.self_attn.q_proj"
    with torch.no_grad():
        policy.hf.get_submodule(target).weight[3] = 0
    attach(policy, Adapter(form="dora", rank=4), seed=0)
    policy(a_batch()).logp.mean().backward()
    layer = policy.hf.get_submodule(target)
    assert all(p.grad.isfinite().all() for p in adapter_layers.learned(layer).values())
    assert not adapter_layers.merged_weight(layer)[3].any()


@pytest.mark.parametrize("form", ["lora", "dora"])
def test_gradients_are_finite_differences(form):
    """OPT, since most others round their norms to float32. Norms are held in DoRA's gradient: of m alone it is the whole one."""
    policy, batch = Policy(network("opt").double()), a_batch()
    attach(policy, Adapter(form=form, rank=4), seed=0)
    moved(policy)
    policy(batch).logp.sum().backward()
    a, b, *m = adapter_layers.learned(adapter_layers.adapted(policy.hf)[0][1]).values()
    for weight in m or (a, b):
        for at in [(0,), (3,)] if m else [(0, 0), (3, 2)]:
            around = []
            for step in (1e-5, -1e-5):
                with torch.no_grad():
                    weight[at] += step
                    around.append(float(policy(batch).logp.sum()))
                    weight[at] -= step
            assert float(weight.grad[at]) == pytest.approx((around[0] - around[1]) / 2e-5, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", ["dpo", "grpo", "ppo", "ppo_critic", "reward_model"])
def test_a_step_depends_on_neither_cuts_nor_padding_nor_checkpointing(name):
    """One batch of trees, row by row, padded rows, or layers computed twice: one loss, one gradient; none at all is no match."""
    from tests.battery.variants import build

    method = build(name, {}, steps=3, max_tokens=6)
    items = world.items_for(method)

    def step(batches, layout: str = "tree", checkpointing: bool = False):
        model = world.network(method)
        attach(model, Adapter(rank=3, alpha=6.0), seed=0)
        moved(model).layout_mode = layout
        model.set_checkpointing(checkpointing)
        loss, _ = loop.accumulate(model, method.objective, batches)
        return loss, {n: p.grad for n, p in model.named_parameters() if p.requires_grad}

    loss, whole = step([assemble(items)])
    assert all(g is not None and g.abs().max() > 0 for n, g in whole.items() if "lora" in n), "silently no gradient"
    ways = [step(micro_batches(items, 1)), step([assemble(items)], "padded"), step([assemble(items)], checkpointing=True)]
    for other, gradients in ways:
        assert_close(other, loss, rtol=1e-6, atol=1e-7)
        for key, gradient in whole.items():
            assert_close(gradients[key], gradient, rtol=1e-5, atol=1e-7)


def test_only_adapter_and_heads_learn():
    def learning(model) -> set[str]:
        return {n for n, p in model.named_parameters() if p.requires_grad}

    parts = lambda prefix: {  # noqa: E731
        f"{prefix}.layers.{i}.{m}.lora_{p}.default.weight"
        for i in (0, 1) for m in ("self_attn.q_proj", "self_attn.v_proj") for p in "AB"
    }  # fmt: skip
    named = Adapter(rank=2, targets=("q_proj", "v_proj"), modules_to_save=("model.norm",))
    value, head = ValuePolicy(network("llama")), {"value_head.weight", "value_head.bias"}
    attach(value, named, seed=0)
    assert learning(value) == parts("hf.model") | head | {"hf.model.norm.weight"}
    critic = CriticPolicy(network("llama"), network("llama"))
    attach(critic, named, seed=0)
    both = parts("hf.model") | parts("critic.hf.model") | {"hf.model.norm.weight", "critic.hf.model.norm.weight"}
    assert learning(critic) == both | head
    reward = a_reward_model()
    attach(reward, named, seed=0)
    assert learning(reward) == parts("hf.model") | {"hf.score.weight", "hf.model.norm.weight"}


def a_reward_model() -> RewardModel:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model("llama", **{k: v for k, v in network("llama").config.to_dict().items() if k != "model_type"})
    config.num_labels, config.pad_token_id = 1, 0
    return scored(AutoModelForSequenceClassification.from_config(config), 0)


def test_the_optimizer_holds_what_learns_alone():
    """Two factors of rank 4 on the seven layers of two blocks: 4 (in + out) numbers a layer, twice that in moments."""
    policy = adapted()
    expected = (
        2 * 4 * (3 * 32 + 32 + 2 * (32 + 16) + 3 * (32 + 48))
    )  # q and o: 64 each; k and v: 48 each; gate, up, down: 80 each
    assert adapters.counted(policy)[0] == expected
    optimizer = AdamW(policy, learning_rate=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    policy(a_batch()).logp.mean().backward()
    frozen = {n: p.clone() for n, p in policy.named_parameters() if not p.requires_grad}
    optimizer.step(1.0)
    assert sum(t.numel() for n, t in optimizer.tensors().items() if n.startswith("exp_avg")) == 2 * expected
    assert all(torch.equal(dict(policy.named_parameters())[n], p) for n, p in frozen.items()), "weight decay too moves no other"


def test_half_precision_weights_have_masters():
    policy = Policy(network("llama").bfloat16())
    attach(policy, Adapter(rank=4), seed=0)
    optimizer = AdamW(policy, learning_rate=1e-6, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    assert set(optimizer.master) == {n for n, p in policy.named_parameters() if p.requires_grad}
    before = {n: t.clone() for n, t in optimizer.master.items()}
    for _ in range(2):
        policy(a_batch()).logp.mean().backward()
        optimizer.step(1.0)
    assert all(not torch.equal(before[n], optimizer.master[n]) for n in before), "steps too small for bf16 still count"


def test_a_layer_begins_alike_whatever_else_is_adapted():
    """A is drawn by seed and layer: uniform within 1/sqrt(in), and no other random number moves."""
    alone, among, other = adapted(targets=("q_proj",)), adapted(), Policy(network("llama"))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    attach(other, Adapter(rank=4), seed=1)
    assert torch.equal(torch.rand(3), expected)
    name = "model.layers.1.self_attn.q_proj"
    first, same, different = (p.hf.get_submodule(name).lora_A["default"].weight for p in (alone, among, other))
    assert torch.equal(first, same)
    assert not torch.equal(first, different)
    assert 0.9 * 32**-0.5 < float(first.detach().abs().max()) <= 32**-0.5


def test_merging_leaves_no_trace():
    policy, batch = moved(adapted()), a_batch()
    before, names = policy(batch).logp.detach(), [n for n, _ in policy.named_parameters()]
    with adapter_layers.merged(policy.hf):
        assert adapter_layers.adapted(policy.hf) == []
        assert {n for n, _ in policy.hf.named_parameters()} == {n for n, _ in network("llama").named_parameters()}
        assert_close(policy(batch).logp, before, rtol=1e-5, atol=1e-5)
    assert torch.equal(policy(batch).logp, before)
    assert [n for n, _ in policy.named_parameters()] == names


def test_what_rounding_takes_from_a_merged_model_is_known():
    """1.0 in bfloat16 has neighbours 2^-8 below and 2^-7 above: a change of 2^-10 is lost whole, one of 2^-7 not at all."""
    for dtype, change, expected in ((torch.bfloat16, 2**-10, 1.0), (torch.bfloat16, 2**-7, 0.0), (torch.float32, 2**-10, 0.0)):
        policy = Policy(network("llama").to(dtype))
        attach(policy, Adapter(rank=1, alpha=1.0, targets=("q_proj",)), seed=0)
        assert adapter_layers.lost(policy.hf) == 0.0, "nothing has changed yet"
        with torch.no_grad():
            for _, layer in adapter_layers.adapted(policy.hf):
                layer.base_layer.weight.fill_(1.0)
                layer.lora_A["default"].weight.fill_(1.0)
                layer.lora_B["default"].weight.fill_(change)
        assert adapter_layers.lost(policy.hf) == expected


def test_a_start_in_the_same_memory_is_the_start():
    policy, batch = Policy(network("llama")), a_batch()
    before = policy(batch).logp.detach()
    attach(policy, Adapter(rank=4), seed=0)
    now = moved(policy)(batch).logp.detach()
    assert torch.equal(adapter_layers.Start(policy)(batch, frozenset({Head.LOGP})).logp, before)
    assert torch.equal(policy(batch).logp, now)
    assert not torch.equal(now, before)
    adapters.detach(policy)
    assert torch.equal(policy(batch).logp, before)
    assert all(p.requires_grad for p in policy.parameters())


@pytest.mark.skipif(not matmul.packs(), reason="weights are packed on x86 processors with oneDNN")
@pytest.mark.parametrize(("kind", "form"), [*[(k, "lora") for k in ("llama", "qwen2", "gpt_neox", "gpt2")], ("gpt2", "dora")])
def test_decoding_has_the_adapter_in_its_packed_weights(kind, form, monkeypatch):
    policy = moved(adapted(kind, form=form))

    def stepped() -> torch.Tensor:
        decoder = decoder_for(policy.hf)
        with decoder.ready(None):
            session = decoder.open(PROMPTS, [0, 0, 1])
            return torch.stack([session.step(torch.arange(3) + 20 + t) for t in range(3)])

    packed = stepped()
    with plainly(policy.hf):
        found = decode_products.look(policy.hf)
    with plainly(plain := network(kind)):
        assert found == decode_products.look(plain), "an adapted layer is one layer"
    monkeypatch.setattr(matmul, "packs", lambda: False)
    assert_close(packed, stepped(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"targets": ("q_prj",)}, "did you mean 'q_proj'"),
        ({"targets": ("lm_head",)}, r"modules_to_save: \[lm_head\]"),
        ({"targets": ("embed_tokens",)}, r"modules_to_save: \[embed_tokens\]"),
        ({"targets": ("input_layernorm",)}, "not a linear layer"),
        ({"modules_to_save": ("lm_hed",)}, "did you mean 'lm_head'"),
        ({"modules_to_save": ("mlp",)}, "whole and by an adapter"),
        ({"modules_to_save": ("q_proj",)}, "whole and by an adapter"),
        ({"dropout": 0.05}, "dropout is always off"),
    ],
)
def test_what_cannot_be_meant_is_refused(named, message):
    with pytest.raises(UserError, match=message):
        adapted(**named)


def test_the_head_may_learn_whole():
    """The fused log-prob reads the weight that learns; with tied embeddings it is theirs."""
    for kind, tied in (("llama", False), ("gemma2", True)):
        policy = adapted(kind, modules_to_save=("lm_head",))
        assert policy.head_mode == "fused"
        policy(a_batch()).logp.mean().backward()
        head, embeddings = policy.hf.get_output_embeddings().weight, policy.hf.get_input_embeddings().weight
        assert head.grad.abs().max() > 0
        assert (head is embeddings) == tied == embeddings.requires_grad


def test_without_the_library_one_message_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"pip install 'evenhand\[adapters\]'"):
        adapted()


def test_values_and_scores_are_read_off_adapted_states():
    model, batch = ValuePolicy(network("llama")), a_batch()
    torch.nn.init.ones_(model.value_head.weight)
    before = model(batch, frozenset({Head.VALUE})).value.detach()
    attach(model, Adapter(rank=4), seed=0)
    assert torch.equal(model(batch, frozenset({Head.VALUE})).value, before)
    assert not torch.equal(moved(model)(batch, frozenset({Head.VALUE})).value, before)


@pytest.mark.parametrize("quantize", [None, "nf4"])
def test_every_method_can_have_one(quantize):
    """Each kind of network takes an adapter, and each method's objective gives every B a gradient at the first step."""
    models: dict[Hashable, Trunk] = {}
    with checked.remembered():
        for name in sorted(methods.METHODS.keys() - variants.REPEATED):
            method = methods.build(name, {}, steps=4, max_tokens=6)
            if method.gate is not None:  # frozen but for its gate: refused
                continue
            if (kind := world.kind_of(method)) not in models:
                models[kind] = world.network(method)
                attach(models[kind], Adapter(rank=2, quantize=quantize), seed=0)
            model = models[kind]
            model.zero_grad()
            loop.accumulate(model, method.objective, [assemble(world.items_for(method))])
            missing = [n for n, p in model.named_parameters() if "lora_B" in n and (p.grad is None or not p.grad.any())]
            assert not missing, f"{name}: {missing[:2]}"
