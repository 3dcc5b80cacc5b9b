"""Every path through a kernel, on the processor and (`pytest -m gpu`) on a CUDA device, against float64 on the processor.

Each test records the relative error that it found beside the one it allows; `python -m benchmarks.gpu_lane` shows them.
"""

from __future__ import annotations

import copy
import itertools
import warnings

import pytest
import torch
from torch import Tensor, nn

from benchmarks.corpus import prompts, tokenizer
from evenhand import methods
from evenhand.core import eight_bit, nf4
from evenhand.core.logprob import completion_logp_entropy
from evenhand.core.stochastic_rounding import to_bfloat16
from evenhand.data.template import Renderer
from evenhand.engines.draw import Draw
from evenhand.engines.local import LocalEngine
from evenhand.models.adapter_config import Adapter
from evenhand.models.adapters import attach
from evenhand.models.attention_rule import AttentionRule
from evenhand.models.decode import SharedPrefixDecoder, decoder_for
from evenhand.models.load import new_policy
from evenhand.models.packed_layers import PackedLinear
from evenhand.models.tree_attention import Tree
from evenhand.train import checkpoint, loop
from evenhand.train.examples import Example, micro_batches
from evenhand.train.logprobs import read
from evenhand.train.optim import AdamW, clip_gradients
from evenhand.train.optim_8bit import AdamW8bit
from evenhand.types import Head, Prompt, Sampling
from tests.battery.world import CONFIG, items_for, network
from tests.models.test_tree_kernels import LONG, dense, operands
from tests.models.tiny_networks import a_batch

WIDE = CONFIG | {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 96, "initializer_range": 0.1}
"""Heads of 32 numbers: an accelerator's attention kernels know none below 16."""
SINGLE, HALF = torch.float32, torch.bfloat16
PRECISIONS = pytest.mark.parametrize("dtype", [SINGLE, HALF], ids=["fp32", "bf16"])


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request) -> str:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    return request.param


@pytest.fixture
def near(record_property):
    """Checks the norm of an error beside that of what is exact, and records both."""

    def check(found: Tensor, exact: Tensor, allowed: float) -> None:
        error = float((found.detach().double().cpu() - exact.detach()).norm() / exact.detach().norm())
        record_property("error", f"{error:.1e} of {allowed:.0e}")
        assert error <= allowed

    return check


def drawn(*shape: int, dtype: torch.dtype = SINGLE, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


HEADS = {"plain": {}, "soft cap": {"softcap": 3.0}, "scale and temperature": {"scale": 0.5, "temperature": 0.7}}


@PRECISIONS
@pytest.mark.parametrize("carry", [0, 1 << 20], ids=["recomputed", "carried"])
@pytest.mark.parametrize("head", HEADS)
def test_log_probs(device, dtype, carry, head, near):
    """Log-probs, entropies and the gradients of both, in chunks of 16 of 50 rows."""
    hidden, weight, bias = drawn(50, 48, dtype=dtype), drawn(1003, 48, dtype=dtype, seed=1), drawn(1003, seed=2)
    ids, pull = torch.randint(1003, (50,), generator=torch.Generator().manual_seed(3)), drawn(2, 50, seed=4)
    leaves = [x.to(device).requires_grad_() for x in (hidden, weight, bias.to(dtype))]
    named = HEADS[head] | {"chunk": 16, "carry_bytes": carry}
    found = completion_logp_entropy(leaves[0], leaves[1], ids.to(device), bias=leaves[2], **named)
    exact = [x.detach().double().cpu().requires_grad_() for x in leaves]
    expected = plainly_read(*exact, ids, **HEADS[head])
    for a, b in zip(found, expected, strict=True):
        near(a, b, 1e-5 if dtype == SINGLE else 2e-2)
    grads = torch.autograd.grad(found, leaves, list(pull.to(device)))
    for a, b in zip(grads, torch.autograd.grad(expected, exact, list(pull.double())), strict=True):
        near(a, b, 1e-5 if dtype == SINGLE else 4e-2)


def plainly_read(hidden, weight, bias, ids, *, softcap=None, scale=1.0, temperature=1.0):
    z = scale * (hidden @ weight.T + bias)
    z = (z if softcap is None else softcap * torch.tanh(z / softcap)) / temperature
    logp = z.log_softmax(-1)
    return logp.gather(1, ids[:, None])[:, 0], -(logp.exp() * logp).sum(1)


RULES = {"plain": AttentionRule(), "window, cap and scale": AttentionRule(scale=0.2, window=11, softcap=2.0)}


TREES = [("chosen", "plain", 128), *itertools.product(["chosen", "blocks"], RULES, [16, 64])]


@PRECISIONS
@pytest.mark.parametrize(("way", "rule", "size"), TREES)
def test_tree_attention(device, dtype, size, rule, way, near):
    """What the device chooses (slices on a processor, FlexAttention on CUDA), and padded blocks; forward and back."""
    batch, rule = a_batch(shapes=LONG), RULES[rule]
    exact = [x.detach().to(dtype).double().requires_grad_() for x in operands(len(batch.ids), size=size)]
    leaves = [x.detach().to(device, dtype).requires_grad_() for x in exact]
    tree = Tree(batch.layout, batch.positions.to(device))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # FlexAttention that fails is said as a warning
        if way == "chosen":
            found = tree.attend(*leaves, rule)
        else:
            found = tree.blocks.attend(*leaves, scale=rule.scale, window=rule.window, softcap=rule.softcap)
    expected, pull = dense(*exact, batch.layout, rule), drawn(*found.shape)
    near(found, expected, 1e-5 if dtype == SINGLE else 1e-2)
    grads = torch.autograd.grad(found, leaves, pull.to(device, dtype))
    for a, b in zip(grads, torch.autograd.grad(expected, exact, pull.to(dtype).double()), strict=True):
        near(a, b, 1e-5 if dtype == SINGLE else 2e-2)


WAYS = ("packed", "padded", "checkpointed", "bf16 products", "adapter", "four bits")
STEPS = [*((name, "packed") for name in ("sft", "reward_model", "grpo", "ppo", "kto")), *(("dpo", way) for way in WAYS)]


@PRECISIONS
@pytest.mark.parametrize(("name", "way"), STEPS)
def test_a_step(device, dtype, name, way, near):
    """Loss and gradient of an optimizer step, the weights those of the narrower network."""
    method = methods.build(name, {}, steps=6, max_tokens=8)
    batches = micro_batches(items_for(method), 60)
    narrow = in_precision(network(method, config=WIDE), dtype)
    if way in ("adapter", "four bits"):
        attach(narrow, Adapter(rank=4, quantize="nf4" if way == "four bits" else None), seed=0)
        with torch.no_grad():
            for number, p in enumerate(p for p in narrow.parameters() if p.requires_grad):
                p.add_(0.02 * drawn(*p.shape, seed=number).to(p.dtype))
    wide = in_precision(copy.deepcopy(narrow), torch.float64)
    for layer in (m for m in wide.modules() if isinstance(m, PackedLinear)):
        layer.dtype = torch.float64
    expected = gradient_of(wide, method, batches)
    if way == "padded":
        narrow.layout_mode = "padded"
    narrow.set_checkpointing(way == "checkpointed")
    narrow.set_matmul_dtype(HALF if way == "bf16 products" else None)
    found = gradient_of(narrow.to(device), method, [b.to(device) for b in batches])
    low = HALF in (dtype, narrow.matmul_dtype)
    for a, b in zip(found, expected, strict=True):
        near(a, b, 8e-2 if low else 1e-4)


def in_precision(model, dtype: torch.dtype):
    """The same network, its value head as it always is."""
    model = model.to(dtype)
    if hasattr(model, "value_head"):
        model.value_head.float()
    return model


def gradient_of(model, method, batches):
    loss, _ = loop.accumulate(model, method.objective, batches)
    return loss, torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])


@PRECISIONS
@pytest.mark.parametrize("kind", ["temperature 1", "temperature 0.7", "nucleus", "greedy"])
def test_sampling_says_what_the_network_says(device, dtype, kind, near):
    """Log-probs as sampled, with prompts shared and rows that end early, and those of the same tokens recomputed."""
    sampling = {
        "temperature 1": Sampling(max_tokens=24), "temperature 0.7": Sampling(max_tokens=24, temperature=0.7),
        "nucleus": Sampling(max_tokens=24, top_p=0.9), "greedy": Sampling(max_tokens=24, temperature=0.0),
    }[kind]  # fmt: skip
    policy, exact = opened(device, dtype)
    renderer = Renderer(tokenizer(50))
    renderer.stop_ids = frozenset(range(5))
    asked = [Prompt(content=t) for t in prompts(50, 3, 6) + prompts(50, 2, 40, seed=1)]
    groups = LocalEngine(policy, renderer).generate(asked, 4, sampling)
    tokens = [renderer.tokenise(g, max_prompt=None, max_completion=None) for g in groups]
    named = {"tokens_per_microbatch": 400, "temperature": sampling.temperature or 1.0, "device": "cpu"}
    rows = read(exact, [Example(tokens=t) for t in tokens], frozenset({Head.LOGP}), **named)[Head.LOGP]
    recomputed = torch.cat([row for its in rows for row in its]).double()
    sampled = torch.cat([torch.tensor(c.behaviour_logp) for t in tokens for c in t.completions])
    assert len({len(c.ids) for t in tokens for c in t.completions}) > 1 or kind == "greedy"
    if kind == "greedy":
        assert not sampled.any()
    elif kind == "nucleus":
        assert (sampled >= recomputed - (1e-3 if dtype == SINGLE else 0.3)).all(), "renormalised over fewer tokens"
    else:
        near(sampled, recomputed, 1e-4 if dtype == SINGLE else 3e-2)


def opened(device: str, dtype: torch.dtype):
    """A policy on a device, checked there, and the same weights in float64 on the processor."""
    first = new_policy(WIDE | {"vocab_size": 50, "max_position_embeddings": 128}, seed=0, device="cpu").to(dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a layout that the self-check refuses is said as a warning
        policy = type(first)(copy.deepcopy(first.hf).to(device))
    assert policy.layout_mode == "tree"
    assert isinstance(decoder_for(policy.hf), SharedPrefixDecoder)
    return policy, first.double()


DRAWS = {
    "plain": {}, "nucleus": {"top_p": 0.6}, "top-k": {"top_k": 40}, "min-p": {"min_p": 0.02},
    "all": {"top_p": 0.9, "top_k": 300, "min_p": 0.001, "temperature": 1.3},
}  # fmt: skip


@pytest.mark.parametrize("kind", DRAWS)
def test_draws(device, kind, near):
    """Of 256 rows over 5,000 tokens: the processor's tokens, and the log-prob of each among those that are kept."""
    logits, uniform = 3 * drawn(256, 5000), torch.rand(256, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sampling = [Sampling(max_tokens=1, **DRAWS[kind])] * len(logits)
    tokens, logp = (x.cpu() for x in Draw(sampling, torch.device(device))(logits.to(device), uniform.to(device)))
    there, _ = Draw(sampling, torch.device("cpu"))(logits, uniform)
    assert (tokens == there).float().mean() > 0.98, "rounding moves a draw that falls on the edge between two"
    near(logp, kept(logits.double(), sampling[0]).gather(1, tokens[:, None])[:, 0], 1e-5)


def kept(logits: Tensor, sampling: Sampling) -> Tensor:
    """Log-probs [R, V] of the tokens that top-k, then top-p, then min-p keep, by definition."""
    value, order = (logits / sampling.temperature).sort(1, descending=True)
    value[:, sampling.top_k or value.shape[1] :] = -torch.inf
    p = value.softmax(1)
    out = (p.cumsum(1) - p >= sampling.top_p) | (p < sampling.min_p * p[:, :1])
    return torch.full_like(value, -torch.inf).scatter(1, order, value.masked_fill(out, -torch.inf).log_softmax(1))


@PRECISIONS
def test_four_bits(device, dtype, near):
    """The bytes are the processor's; products with them and their gradient are those of the weights they stand for."""
    layer = nn.Linear(200, 70).to(dtype)
    halves, scale = nf4.packed(layer.weight)
    packed = PackedLinear(layer.to(device))
    assert torch.equal(packed.halves.cpu(), halves)
    assert torch.equal(packed.scale.cpu(), scale)
    x, pull = drawn(30, 200, dtype=dtype).to(device).requires_grad_(), drawn(30, 70, dtype=dtype).to(device)
    weight = nf4.unpacked(halves, scale, (70, 200)).to(dtype).double()
    found = packed(x)
    near(found, x.detach().double().cpu() @ weight.T + layer.bias.detach().double().cpu(), 1e-5 if dtype == SINGLE else 1e-2)
    near(torch.autograd.grad(found, x, pull)[0], pull.double().cpu() @ weight, 1e-5 if dtype == SINGLE else 1e-2)


def test_eight_bits(device, near):
    """Codes are the processor's. Roots are rounded by chance, right on average."""
    x = drawn(5000) * 10.0 ** -torch.arange(5000).div(900)
    for found, known in zip(eight_bit.quantise(x.to(device)), eight_bit.quantise(x), strict=True):
        assert torch.equal(found.cpu(), known)
    draw, many = torch.Generator(device).manual_seed(0), torch.tensor([1.0, 0.3]).repeat(50_000)
    back = eight_bit.dequantise(*eight_bit.quantise_roots(many.to(device), draw), signed=False)
    near(back.view(-1, 2).double().square().mean(0), torch.tensor([1.0, 0.09]).double(), 1e-3)
    third = torch.full((200_000,), 1 + 2**-7 / 3)
    rounded = to_bfloat16(third.to(device), draw).double()
    near(rounded.mean()[None] - 1, third[:1].double() - 1, 2e-2)


@PRECISIONS
@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit"])
def test_updates(device, dtype, kind, near):
    """Where twenty updates lead, with clipped gradients, beside AdamW in float64: the change of the weights."""
    first = nn.Linear(96, 64, bias=False).to(dtype)
    exact, model = copy.deepcopy(first).double(), copy.deepcopy(first).to(device)
    named = {"betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1, "learning_rate": 1e-2}
    plain = torch.optim.AdamW(exact.parameters(), lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1)
    ours = AdamW(model, **named) if kind == "adamw" else AdamW8bit(model, seed=0, **named)
    for step in range(20):
        exact.weight.grad, model.weight.grad = (drawn(64, 96, dtype=dtype, seed=step).to(w) for w in (exact.weight, model.weight))
        for each in (exact, model):
            clip_gradients(each.parameters(), 1.0)
        ours.step(1.0), plain.step()
    before = first.weight.detach().double()
    near(model.weight.double().cpu() - before, exact.weight.detach() - before, {SINGLE: 0.03, HALF: 0.1}[dtype])
    if dtype == SINGLE and kind == "adamw":
        near(model.weight, exact.weight.detach(), 1e-5)


@pytest.mark.parametrize("kind", ["adamw", "adamw_8bit"])
def test_a_checkpoint_goes_on_with_the_same_bytes(device, kind, tmp_path):
    named = {"betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1, "learning_rate": 1e-2}
    models = [nn.Linear(96, 64).to(device, HALF) for _ in range(2)]
    first, second = (AdamW(m, **named) if kind == "adamw" else AdamW8bit(m, seed=0, **named) for m in models)

    def move(model: nn.Module, optimizer, seed: int) -> None:
        for p in model.parameters():
            p.grad = drawn(*p.shape, seed=seed).to(p)
        optimizer.step(1.0)

    move(models[0], first, 1)
    checkpoint.save(tmp_path, step=1, model=models[0], optimizer=first, state={})
    checkpoint.load(checkpoint.latest(tmp_path), model=models[1], optimizer=second)
    move(models[0], first, 2), move(models[1], second, 2)
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))
