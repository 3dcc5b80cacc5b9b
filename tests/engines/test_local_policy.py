"""Sampler and trainer agree: behaviour_logp is the policy's own log-prob, on a real tiny model."""

from __future__ import annotations

import pytest
import torch

from evenhand.data.batch import pack
from evenhand.data.template import Renderer
from evenhand.engines.local import LocalEngine
from evenhand.models.load import load_policy, load_tokenizer
from evenhand.types import Finish, Head, Prompt, Sampling

PROMPTS = [Prompt(content=text) for text in ("Once upon a time", "Lily and Tom went to the park. They", "One day, a cat")]


@pytest.fixture(scope="module")
def stories(real_data):
    folder = str(real_data / "models" / "stories260K")
    return load_policy(folder, device="cpu"), Renderer(load_tokenizer(folder))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.3])
def test_behaviour_logp_is_the_policys_logp_on_the_packed_tree(stories, temperature):
    policy, renderer = stories
    policy.train()
    sampling = Sampling(temperature=temperature, max_tokens=40, seed=1)
    groups = LocalEngine(policy, renderer).generate(PROMPTS, 4, sampling)
    batch = pack([renderer.tokenise(g, max_prompt=64, max_completion=64) for g in groups])
    with torch.no_grad():
        out = policy(batch, frozenset({Head.LOGP}), temperature=temperature)
    counted = batch.completion_mask
    assert int(counted.sum()) == sum(len(c.tokens) for g in groups for c in g.completions)
    torch.testing.assert_close(batch.behaviour_logp[counted], out.logp[counted], atol=1e-4, rtol=0)


def test_greedy_text_is_that_of_transformers(stories):
    policy, renderer = stories
    groups = LocalEngine(policy, renderer).generate(PROMPTS, 1, Sampling(temperature=0, max_tokens=24))
    for prompt, group in zip(PROMPTS, groups, strict=True):
        ids = torch.tensor([renderer.prompt_ids(prompt)])
        want = policy.hf.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=24, do_sample=False, eos_token_id=sorted(renderer.stop_ids)
        )[0, ids.shape[1] :]
        assert group.completions[0].tokens == tuple(want.tolist())
    assert "there was a little" in groups[0].completions[0].content


def test_rows_of_unequal_length_end_at_their_stop_token(stories):
    policy, renderer = stories
    stop = renderer.tokenizer.encode(".", add_special_tokens=False)[-1]
    engine = LocalEngine(policy, Renderer(renderer.tokenizer, extra_stops=[stop]))
    completions = [c for g in engine.generate(PROMPTS, 8, Sampling(max_tokens=60)) for c in g.completions]
    ended = [c for c in completions if c.finish is Finish.STOP]
    assert len(ended) > 12
    assert len({len(c.tokens) for c in ended}) > 4
    assert all(stop not in c.tokens[:-1] and c.content.count(".") == 0 for c in completions)
