"""vLLM as a sampler against a stand-in with vLLM's interface; `make test-vllm` runs the same with vLLM itself."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import pytest
import torch
from safetensors.torch import load_file

from evenhand.engines import registry
from evenhand.engines.decode_batch import DecodeRow
from evenhand.engines.local import LocalEngine
from evenhand.engines.registry import open_engine
from evenhand.engines.vllm import VLLMBackend
from evenhand.errors import UserError
from evenhand.types import Finish, Prompt, Sampling
from tests.engines.completions_server import policy, renderer

PROMPTS = [Prompt(content="red cat", id="x"), Prompt(content="small dog", id="y")]


class EngineDeadError(Exception):
    """As vLLM's is called."""


class LLM:
    """Samples with a policy of its own; the sampled token is never first among its log-probs. `stale`: loads all but the head."""

    stale = False
    dies = 0
    opened: ClassVar[list[LLM]] = []

    def __init__(self, model, **options):
        self.options, self.asked, self.resets = options, [], 0
        self.policy = policy(seed=9)
        self.loaded(model)
        LLM.opened.append(self)

    def loaded(self, folder):
        from pathlib import Path

        given = {n: w for file in Path(folder).glob("*.safetensors") for n, w in load_file(file).items()}
        hf = self.policy.hf
        if LLM.stale:
            hf.lm_head.weight = torch.nn.Parameter(hf.lm_head.weight.detach().clone())
            given.pop("lm_head.weight")
        with torch.no_grad():
            for name, weight in given.items():
                hf.get_parameter(name).copy_(weight)

    def collective_rpc(self, method, kwargs):
        assert method == "reload_weights"
        self.loaded(kwargs["weights_path"])

    def reset_prefix_cache(self):
        self.resets += 1

    def generate(self, requests, parameters, use_tqdm):
        self.asked += list(zip(requests, parameters, strict=True))
        if LLM.dies:
            LLM.dies -= 1
            raise EngineDeadError("the engine core ended")
        rows = [
            DecodeRow(prompt=i, key=(str(p.seed), 0), sampling=Sampling(temperature=p.temperature, max_tokens=p.max_tokens))
            for i, p in enumerate(parameters)
        ]
        found = LocalEngine(self.policy, renderer()).sample([r["prompt_token_ids"] for r in requests], rows)
        return [SimpleNamespace(outputs=[self.output(s)]) for s in found]

    def output(self, sampled):
        said = [
            {-1: SimpleNamespace(logprob=-7.0), t: SimpleNamespace(logprob=v)}
            for t, v in zip(sampled.tokens, sampled.logp, strict=True)
        ]
        return SimpleNamespace(token_ids=list(sampled.tokens), logprobs=said, finish_reason=sampled.finish.value)


@pytest.fixture
def student(monkeypatch):
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, lambda **named: SimpleNamespace(**named)
    monkeypatch.setitem(sys.modules, "vllm", module)
    monkeypatch.setattr(registry, "_OPENED", {})
    monkeypatch.setattr(LLM, "stale", False)
    monkeypatch.setattr(LLM, "dies", 0)
    monkeypatch.setattr(LLM, "opened", [])
    return policy(seed=0)


def test_answers_keep_order_and_log_probs_of_the_sampled_token(student):
    engine = open_engine({"kind": "vllm", "options": {"max_model_len": 64}}, student, renderer())
    first, second = engine.generate(PROMPTS, 2, [Sampling(max_tokens=5), Sampling(max_tokens=1, temperature=0)])
    assert [first.prompt.id, second.prompt.id] == ["x", "y"]
    drawn, greedy = first.completions
    prompt = list(renderer().prompt_ids(PROMPTS[0]))
    with torch.no_grad():
        logits = student.hf(input_ids=torch.tensor([[*prompt, *drawn.tokens]])).logits[0, len(prompt) - 1 : -1]
    want = logits.log_softmax(-1).gather(1, torch.tensor(drawn.tokens)[:, None]).squeeze(1)
    assert drawn.behaviour_logp == pytest.approx(want.tolist(), abs=1e-4)
    assert greedy.tokens == (int(logits[0].argmax()),)
    assert greedy.behaviour_logp == (0.0,)
    assert {c.finish for c in (*first.completions, *second.completions)} <= {Finish.STOP, Finish.LENGTH}


def test_requests_say_what_was_asked(student):
    open_engine({"kind": "vllm", "options": {"max_model_len": 64}}, student, renderer()).generate(
        PROMPTS[:1], 2, Sampling(temperature=0.7, top_p=0.9, seed=3)
    )
    (llm,) = LLM.opened
    assert llm.options["logprobs_mode"] == "processed_logprobs"
    assert (llm.options["max_model_len"], llm.options["dtype"]) == (64, "float32")
    (_, one), (_, two) = llm.asked[-2:]
    assert (one.temperature, one.top_p, one.top_k, one.stop_token_ids) == (0.7, 0.9, -1, sorted(renderer().stop_ids))
    assert one.seed != two.seed


def test_new_weights_are_loaded_into_the_one_vllm_of_the_process(student):
    for change in (0.0, 0.3, 0.3):
        with torch.no_grad():
            student.hf.model.embed_tokens.weight.mul_(1 + change)
        engine = open_engine("vllm", student, renderer())  # as a training run opens it again to watch
        engine.generate(PROMPTS, 1, Sampling(max_tokens=4))
        engine.generate(PROMPTS, 1, Sampling(max_tokens=4, seed=1))
        assert engine.syncs == 1
    (llm,) = LLM.opened
    assert llm.resets == 3


def test_a_head_that_stays_stale_is_refused(student, monkeypatch):
    engine = open_engine("vllm", student, renderer())
    engine.generate(PROMPTS, 1, Sampling(max_tokens=4))
    monkeypatch.setattr(LLM, "stale", True)
    with torch.no_grad():
        student.hf.model.embed_tokens.weight.mul_(1.3)
    with pytest.raises(UserError, match="vLLM does not sample from the policy"):
        engine.generate(PROMPTS, 1, Sampling(max_tokens=4))


def test_a_dead_vllm_is_opened_again_with_the_current_weights(student, monkeypatch):
    engine = open_engine("vllm", student, renderer())
    before = engine.generate(PROMPTS, 2, Sampling(max_tokens=4))
    monkeypatch.setattr(LLM, "dies", 1)
    assert [g.completions for g in engine.generate(PROMPTS, 2, Sampling(max_tokens=4))] == [g.completions for g in before]
    assert len(LLM.opened) == 2
    monkeypatch.setattr(LLM, "dies", 100)
    with pytest.raises(UserError, match="vLLM died: EngineDeadError"):
        engine.generate(PROMPTS, 2, Sampling(max_tokens=4))


def test_answers_that_had_no_room_are_refused(student, monkeypatch):
    engine = open_engine("vllm", student, renderer())
    whole = LLM.output
    cut = lambda s: replace(s, tokens=s.tokens[:1], logp=s.logp[:1], finish=Finish.LENGTH)  # noqa: E731
    monkeypatch.setattr(LLM, "output", lambda self, s: whole(self, cut(s)))
    with pytest.raises(UserError, match="vLLM: an answer was cut after 1 tokens, 4 were asked for") as refused:
        engine.generate(PROMPTS, 2, Sampling(max_tokens=4))
    assert "max_model_len" in refused.value.fix


def test_a_vllm_that_cannot_be_opened_says_why(student, monkeypatch):
    def refuses(model, **options):
        raise ValueError("1 validation error for ModelConfig\n  max_model_len is greater than 512")

    monkeypatch.setattr(sys.modules["vllm"], "LLM", refuses)
    with pytest.raises(UserError, match="vLLM does not open the policy") as refused:
        open_engine({"kind": "vllm", "options": {"max_model_len": 10**6}}, student, renderer()).generate(PROMPTS, 1, Sampling())
    assert "max_model_len is greater than 512" in refused.value.why


def test_a_request_that_it_refuses_is_said(student, monkeypatch):
    engine = open_engine("vllm", student, renderer())
    engine.generate(PROMPTS, 1, Sampling(max_tokens=4))

    def refuses(self, requests, parameters, use_tqdm):
        raise ValueError("maximum context length is 24 tokens")

    monkeypatch.setattr(LLM, "generate", refuses)
    with pytest.raises(UserError, match="vLLM refuses what it is asked") as refused:
        engine.generate(PROMPTS, 1, Sampling(max_tokens=4))
    assert "maximum context length is 24" in refused.value.why


def test_another_network_is_another_vllm(student):
    """The same shapes, rotated otherwise: new weights do not make one the other."""
    turned = policy(seed=0, rope_parameters={"rope_type": "default", "rope_theta": 100.0})
    assert [p.shape for p in turned.hf.parameters()] == [p.shape for p in student.hf.parameters()]
    assert open_engine("vllm", student, renderer()).backend is not open_engine("vllm", turned, renderer()).backend
    assert open_engine("vllm", student, renderer()).backend is open_engine("vllm", policy(seed=5), renderer()).backend


def test_settled_options_and_a_missing_installation_are_named(student, monkeypatch):
    with pytest.raises(UserError, match="'logprobs_mode' is settled"):
        VLLMBackend(options={"logprobs_mode": "raw_logprobs"})
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match="vLLM is not installed"):
        open_engine("vllm", student, renderer()).generate(PROMPTS, 1, Sampling(max_tokens=4))
