"""Weights stacked and packed for decoding give the same tokens, and are gone afterwards."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from evenhand.core import matmul
from evenhand.data.batch import pack
from evenhand.data.template import Renderer
from evenhand.engines.local import LocalEngine
from evenhand.models import decode_products
from evenhand.models.decode import decoder_for
from evenhand.models.evaluation_mode import plainly
from evenhand.models.policy import Policy
from evenhand.types import Head, Prompt, Sampling
from tests.models.tiny_networks import VOCABULARY, character_tokenizer, network

pytestmark = pytest.mark.skipif(not matmul.packs(), reason="weights are packed on x86 processors with oneDNN")
PROMPTS = [[5, 9, 11, 3, 7], [4, 8, 15]]
ARCHITECTURES = ["llama", "qwen2", "gemma2", "phi3", "gpt_neox", "opt", "qwen3_moe", "cohere2", "gpt2"]


def stepped(hf, dtype, owner=(0, 0, 1), steps=3, *, alone=False):
    """Logits of every step of three rows."""
    decoder = decoder_for(hf)
    with decoder.ready(dtype, alone=alone):
        session = decoder.open(PROMPTS, list(owner))
        out = [session.logits[torch.tensor(owner)]]
        for t in range(steps):
            out.append(session.step(torch.arange(len(owner)) + 20 + t))
    return torch.stack(out).float()


def stepped_alone(hf, prompt, tokens):
    """Logits of every step of a single row."""
    decoder = decoder_for(hf)
    with decoder.ready():
        session = decoder.open([prompt], [0])
        return torch.cat([session.logits, *(session.step(torch.tensor([t])) for t in tokens)])


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_single_row_has_the_logits_of_the_whole_sequence(kind):
    hf, prompt, tokens = network(kind), PROMPTS[0], [20, 21, 22]
    with plainly(hf):
        expected = hf(input_ids=torch.tensor([[*prompt, *tokens]]), use_cache=False).logits[0, len(prompt) - 1 :]
    assert_close(stepped_alone(hf, prompt, tokens), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=["float32", "bfloat16"])
def test_a_row_has_the_same_bytes_alone_and_beside_others(dtype):
    """Products large enough for rows of zeros, and long enough that oneDNN sums a single row in another order by itself."""
    weight = matmul.packed(torch.randn(576, 1536, generator=torch.Generator().manual_seed(0)).to(dtype or torch.float32), rows=64)
    x = torch.randn(1, 9, 1536, generator=torch.Generator().manual_seed(1)).to(dtype or torch.float32)
    whole = matmul.packed_linear(x, weight, None)
    for rows in (1, 2, 3, 5):
        assert torch.equal(matmul.packed_linear(x[:, :rows], weight, None), whole[:, :rows])
    assert torch.equal(matmul.packed_linear(x[0, 2], weight, None), whole[0, 2])


def test_layers_that_read_one_tensor_are_found():
    hf = network("llama")
    with plainly(hf):
        found = decode_products.look(hf)
    layer = [
        ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], ["self_attn.o_proj"],
        ["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"],
    ]  # fmt: skip
    assert found == [[f"model.layers.{i}.{name}" for name in group] for i in (0, 1) for group in layer] + [["lm_head"]]


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("owner", [(0, 0, 1), (0, 1), (1,)], ids=["shared", "apart", "one row"])
def test_logits_are_those_of_separate_products(kind, owner, monkeypatch):
    hf = network(kind)
    joint = stepped(hf, None, owner)
    monkeypatch.setattr(matmul, "packs", lambda: False)
    assert_close(joint, stepped(hf, None, owner), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "opt"])
def test_everything_is_as_before_afterwards(kind):
    hf = Policy(network(kind)).hf
    linears = [m for m in hf.modules() if isinstance(m, nn.Linear)]
    before = [vars(m).get("forward") for m in linears]
    decoder = decoder_for(hf)
    with decoder.ready(torch.bfloat16):
        inside = [vars(m).get("forward") for m in linears]
    assert [vars(m).get("forward") for m in linears] == before
    assert all(a is not b for a, b in zip(inside, before, strict=True))


HEAD, GATES, QUERIES, OUTPUT = 4 * 32 * 97, 4 * 32 * 2 * 48, 4 * 32 * (32 + 16 + 16), 4 * 32 * 32
"""Bytes of a group of layers of the tiny llama: 12,416, 12,288, 8,192, 4,096; the other layer has the same."""


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (OUTPUT - 1, []),
        (HEAD - 1, ["0.mlp.gate_proj", "0.mlp.up_proj"]),
        (HEAD, ["lm_head"]),
        (HEAD + GATES, ["0.mlp.gate_proj", "0.mlp.up_proj", "lm_head"]),
        (HEAD + QUERIES + OUTPUT - 1, ["0.self_attn.q_proj", "0.self_attn.k_proj", "0.self_attn.v_proj", "lm_head"]),
    ],
)
def test_copies_stay_below_their_limit_and_the_largest_come_first(limit, expected, monkeypatch):
    hf = network("llama")
    monkeypatch.setattr(decode_products, "LIMIT", limit)
    with decoder_for(hf).ready():
        packed = [name for name, m in hf.named_modules() if type(m) is nn.Linear and "forward" in vars(m)]
    assert [name.removeprefix("model.layers.") for name in packed] == expected


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_half_precision_is_used_and_close(kind):
    hf = network(kind)
    exact, rough = stepped(hf, None), stepped(hf, torch.bfloat16)
    assert 0 < float((exact - rough).abs().max()) < 0.05 * float(exact.abs().max())


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2", "opt"])
def test_a_row_alone_in_half_precision_is_as_close(kind):
    hf = network(kind)
    exact, packed, alone = (
        stepped(hf, None, (1,)),
        stepped(hf, torch.bfloat16, (1,)),
        stepped(hf, torch.bfloat16, (1,), alone=True),
    )
    assert 0 < float((exact - alone).norm()) < 1.5 * float((exact - packed).norm())


def test_a_row_alone_copies_no_weight(monkeypatch):
    hf, read = network("llama").bfloat16(), set()
    decoder_for(hf)  # its check packs
    product = matmul.row_linear
    monkeypatch.setattr(matmul, "row_linear", lambda x, weight, bias: (read.add(weight.data_ptr()), product(x, weight, bias))[1])
    monkeypatch.setattr(matmul, "packed", None)
    stepped(hf, None, (1,), alone=True)
    assert read == {m.weight.data_ptr() for m in hf.modules() if isinstance(m, nn.Linear)}


def test_a_row_alone_in_float32_is_that_beside_others():
    hf = network("llama")
    assert torch.equal(stepped(hf, None, (1,), alone=True), stepped(hf, None, (1,)))


@pytest.mark.parametrize("rows", [1, 3])
def test_a_single_rows_product_is_the_product(rows):
    draw = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=draw).bfloat16() for shape in ((1, rows, 96), (40, 96), (40,)))
    for its in (bias, None):
        expected = nn.functional.linear(x.double(), weight.double(), None if its is None else its.double())
        assert_close(matmul.row_linear(x, weight, its).double(), expected, rtol=2**-7, atol=2**-5)
    assert torch.backends.mkldnn.enabled


def test_samplers_log_probs_are_the_trainers_in_half_precision():
    policy = Policy(network("qwen2"))
    policy.set_matmul_dtype(torch.bfloat16)
    renderer = Renderer(character_tokenizer())
    assert len(renderer.tokenizer) < VOCABULARY
    groups = LocalEngine(policy, renderer).generate([Prompt(content="ab")], 8, Sampling(max_tokens=12))
    batch = pack([renderer.tokenise(g, max_prompt=None, max_completion=None) for g in groups])
    with torch.no_grad():
        trained = policy(batch, frozenset({Head.LOGP})).logp[batch.completion_mask]
    sampled = batch.behaviour_logp[batch.completion_mask]
    assert len(sampled) > 8
    assert float((trained - sampled).abs().max()) < 0.05
    assert float((trained - sampled).abs().mean()) > 0
