"""What the model did not write has no gradient: against a gradient by hand, and however the step is cut or packed."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from evenhand.train.examples import Example, micro_batches
from evenhand.train.loop import accumulate
from evenhand.types import Completion, Group, Message, Prompt, TokenGroup, Tokens, Turn
from tests.battery.test_reductions import built
from tests.battery.world import VOCABULARY, gradients, network, same

SHAPES = ((2, 3, 2), (1, 1, 4), (3,), (2, 2, 1, 3, 2))
"""Tokens of turns in the order in which they stand: the model's, its environment's, and so on."""


def items(seed: int = 0) -> list[Example]:
    """Two groups of two answers over turns, with advantages, old and reference log-probs, values and returns at every token."""
    draw = torch.Generator().manual_seed(seed)
    made = []
    for g in range(2):
        completions, tokens = [], []
        for shape in SHAPES[2 * g : 2 * g + 2]:
            ids = tuple(torch.randint(1, VOCABULARY, (sum(shape),), generator=draw).tolist())
            turns = tuple(
                Turn(messages=(Message("tool" if k % 2 else "assistant", ""),), tokens=n, written=k % 2 == 0)
                for k, n in enumerate(shape)
            )
            completions.append(Completion(content="", tokens=ids, turns=turns, behaviour_logp=(-1.0,) * len(ids)))
            tokens.append(Tokens(ids=ids, mask=completions[-1].mask, behaviour_logp=(-1.0,) * len(ids)))
        group = Group(prompt=Prompt(content=str(g)), completions=tuple(completions), scores=(1.0, 0.0))
        some = lambda tokens=tokens: tuple(torch.randn(len(t.ids), generator=draw) for t in tokens)  # noqa: E731
        names = ("old_logp", "ref_logp", "value", "returns", "token_advantage")
        fields = {name: some() if name != "old_logp" else tuple(r - 3 for r in some()) for name in names}
        made.append(Example(tokens=TokenGroup(prompt=(3, 5 + g), completions=tuple(tokens), group=group), per_token=fields))
    return made


def elsewhere(example: Example, value: float) -> Example:
    """The example with `value` in every field of the tokens that the model did not write."""
    masks = [torch.tensor(c.mask) for c in example.tokens.completions]
    changed = {
        k: tuple(torch.where(m, r, value) for m, r in zip(masks, rows, strict=True)) for k, rows in example.per_token.items()
    }
    return replace(example, per_token=changed)


def test_the_gradient_of_a_policy_gradient_is_that_of_its_own_tokens_by_hand():
    """REINFORCE, sequence sum, no KL: -sum over own tokens of A log pi / answers, each answer on a row of its own."""
    method = built("reinforce", kl=0.0, baseline="none")
    examples = items()
    found = gradients(method, micro_batches(examples, 1000))
    model = network(method)
    loss, rows = torch.zeros((), dtype=torch.float64), 0
    for example in examples:
        for tokens, advantage in zip(example.tokens.completions, example.per_token["token_advantage"], strict=True):
            whole = torch.tensor([[*example.tokens.prompt, *tokens.ids]])
            logp = model.hf(input_ids=whole).logits[0].log_softmax(-1)
            for t, (token, own) in enumerate(zip(tokens.ids, tokens.mask, strict=True)):
                if own:
                    loss = loss - advantage[t] * logp[len(example.tokens.prompt) + t - 1, token]
            rows += 1
    (loss / rows).backward()
    known = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(found[1], known, rtol=1e-4, atol=1e-6)  # norms are float32


METHODS = {
    "grpo": {"kl": 0.1}, "dapo": {}, "cispo": {}, "ppo": {}, "dr_grpo": {"kl": 0.1}, "rloo": {"kl": 0.1, "kl_in": "loss"},
    "on_policy_distillation": {},
}  # fmt: skip


@pytest.mark.parametrize("name", METHODS)
def test_masked_tokens_have_exactly_no_part_in_loss_or_gradient(name):
    """Whatever stands in their fields: not a bit of loss or gradient changes."""
    method = built(name, **METHODS[name])
    first, second = (gradients(method, micro_batches([elsewhere(e, v) for e in items()], 1000)) for v in (0.0, 7.5))
    assert torch.equal(first[1], second[1])
    assert float(first[0]) == float(second[0])
    assert first[1].abs().max() > 0


@pytest.mark.parametrize("name", METHODS)
def test_neither_packing_nor_micro_batches_nor_order_change_it(name):
    method, examples = built(name, **METHODS[name]), items()
    whole = gradients(method, micro_batches(examples, 1000))
    for cut in (micro_batches(examples, 1), micro_batches(examples[::-1], 1000)):
        same(whole, gradients(method, cut))


def test_a_state_after_a_reply_still_learns_from_what_follows():
    """The tokens of a reply are read, though not learned: another reply is another gradient."""
    method = built("grpo", kl=0.0)
    examples = items()
    tokens = examples[0].tokens
    other = replace(tokens.completions[0], ids=(*tokens.completions[0].ids[:2], 1, 1, 1, *tokens.completions[0].ids[5:]))
    changed = [replace(examples[0], tokens=replace(tokens, completions=(other, tokens.completions[1]))), examples[1]]
    first, second = (accumulate(network(method), method.objective, micro_batches(e, 1000), 1.0)[0] for e in (examples, changed))
    assert float(first) != float(second)
