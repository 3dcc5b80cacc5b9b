"""The vLLM engine against a stand-in with vLLM's interface; vLLM itself is not needed."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest

from evenhand.engines.vllm import VLLMEngine
from evenhand.errors import UserError
from evenhand.types import Finish, Prompt, Sampling


class Renderer:
    stop_ids = frozenset({9})

    def prompt_ids(self, prompt, max_prompt=None):
        return tuple(len(w) for w in prompt.text.split())

    def decode(self, ids):
        return " ".join(map(str, ids))


class LLM:
    """Answers the prompt's own ids plus a stop token; the sampled token is never first among its log-probs."""

    def __init__(self, **options):
        self.options, self.asked = options, []

    def generate(self, requests, parameters, use_tqdm):
        self.asked += list(zip(requests, parameters, strict=True))
        return [
            SimpleNamespace(outputs=[self.output(r["prompt_token_ids"], p)]) for r, p in zip(requests, parameters, strict=True)
        ]

    def output(self, ids, parameters):
        tokens = [*ids, 9][: parameters.max_tokens]
        return SimpleNamespace(
            token_ids=tokens,
            logprobs=[{0: SimpleNamespace(logprob=-7.0), t: SimpleNamespace(logprob=-0.1 * t)} for t in tokens],
            finish_reason="stop" if tokens[-1] == 9 else "length",
        )


@pytest.fixture
def engine(monkeypatch):
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, lambda **named: SimpleNamespace(**named)
    monkeypatch.setitem(sys.modules, "vllm", module)
    return VLLMEngine("folder", Renderer(), dtype="float32")


def test_answers_keep_order_and_log_probs_of_the_sampled_token(engine):
    prompts = [Prompt(content="a bb", id="x"), Prompt(content="ccc", id="y")]
    first, second = engine.generate(prompts, 2, [Sampling(max_tokens=5), Sampling(max_tokens=1, temperature=0)])
    assert [c.tokens for c in first.completions] == [(1, 2, 9), (1,)]
    assert [c.finish for c in first.completions] == [Finish.STOP, Finish.LENGTH]
    assert first.completions[0].behaviour_logp == pytest.approx((-0.1, -0.2, -0.9))
    assert first.completions[1].behaviour_logp == (0.0,)
    assert second.completions[0].content == "3 9"


def test_requests_say_what_was_asked(engine):
    engine.generate([Prompt(content="a", id="x")], 2, Sampling(temperature=0.7, top_p=0.9, seed=3))
    llm = engine._llm
    assert llm.options == {
        "model": "folder",
        "dtype": "float32",
        "logprobs_mode": "processed_logprobs",
        "enable_prefix_caching": True,
    }
    (_, one), (_, two) = llm.asked
    assert (one.temperature, one.top_p, one.top_k, one.stop_token_ids) == (0.7, 0.9, -1, [9])
    assert one.seed != two.seed
    engine.generate([Prompt(content="a", id="x")], 2, Sampling(temperature=0.7, top_p=0.9, seed=3))
    assert [p.seed for _, p in llm.asked[:2]] == [p.seed for _, p in llm.asked[2:]]


def test_a_missing_installation_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="vLLM is not installed"):
        VLLMEngine("folder", Renderer())
