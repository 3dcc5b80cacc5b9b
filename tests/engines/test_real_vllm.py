"""Sampling with vLLM itself, in the process and behind its server, on a processor: `make test-vllm`."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import torch

from evenhand.engines import registry
from evenhand.engines.recompute import recomputed
from evenhand.engines.registry import open_engine
from evenhand.errors import UserError
from evenhand.models.adapter_config import Adapter
from evenhand.models.adapters import attach
from evenhand.models.load import save
from evenhand.types import Prompt, Sampling
from tests.engines.completions_server import policy, renderer

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM: make test-vllm"),
]
WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 2, "head_dim": 32}
"""The narrowest heads that vLLM's kernels for processors take."""
PROMPTS = [Prompt(content=text, id=text) for text in ("red cat", "small dog", "sun", "blue sky tree")]
MOST = 1e-4
"""Nats that log-probs of float32 may differ by."""


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setenv("EVENHAND_CACHE", str(tmp_path / "cache"))


def moved(student, seed):
    """The same policy with other weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in student.hf.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))


def largest_difference(student, engine, temperature):
    groups = engine.generate(PROMPTS, 4, Sampling(max_tokens=16, seed=1, temperature=temperature))
    rows = [
        recomputed(student.hf, renderer().prompt_ids(g.prompt), c.tokens, c.behaviour_logp, temperature=temperature).apart
        for g in groups
        for c in g.completions
    ]
    return float(torch.cat(rows).max())


def greedy(engine):
    return [g.completions[0].tokens for g in engine.generate(PROMPTS, 1, Sampling(max_tokens=12, temperature=0.0))]


def check(student, engine):
    """Log-probs, greedy tokens and repeatable draws over three sets of weights."""
    for seed in range(3):
        if seed:
            moved(student, seed)
        assert largest_difference(student, engine, 1.0) < MOST
        assert largest_difference(student, engine, 0.7) < MOST
        assert greedy(engine) == greedy(open_engine("local", student, renderer()))
        same = [engine.generate(PROMPTS, 2, Sampling(max_tokens=8, seed=3)) for _ in range(2)]
        assert [g.completions for g in same[0]] == [g.completions for g in same[1]]
    assert engine.syncs == 3


def test_in_the_process(monkeypatch):
    monkeypatch.setattr(registry, "_OPENED", {})
    student = policy(seed=0, **WIDE)
    check(student, open_engine({"kind": "vllm", "options": {"max_model_len": 128}}, student, renderer()))


class Served:
    """vLLM's server on a free port, started and killed at will."""

    def __init__(self, folder, log, development="1", more=()):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.folder, self.log, self.development, self.more = folder, log, development, more
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.start()

    def start(self):
        environment = {
            **os.environ, "VLLM_SERVER_DEV_MODE": self.development, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1",
        }  # fmt: skip
        command = [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(self.folder), "--host", "127.0.0.1",
            "--port", str(self.port), "--dtype", "float32", "--max-model-len", "128", "--enforce-eager", "--block-size", "32",
            "--served-model-name", "tiny", "--logprobs-mode", "processed_logprobs", "--max-num-seqs", "32",
            *self.more,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log, start_new_session=True)
        for _ in range(180):
            time.sleep(1)
            assert self.process.poll() is None, "the server ended"
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/health", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                continue
        pytest.fail("the server did not start")

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(folder, *more: str) -> Iterator[Served]:
    save(policy(seed=0, **WIDE), renderer().tokenizer, folder / "model")
    with (folder / "log.txt").open("w") as log:
        made = Served(folder / "model", log, more=more)
        try:
            yield made
        finally:
            made.kill()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as served:
        yield served


def test_two_arms_as_adapters_on_one_server(tmp_path):
    """Side by side, over two sets of weights each; a third policy is the base. Then the server is started again."""
    arms = [policy(seed=0, **WIDE) for _ in range(2)]
    for number, arm in enumerate(arms):
        attach(arm, Adapter(rank=4, alpha=8.0), seed=number)
    with serving(tmp_path, "--enable-lora", "--max-lora-rank", "8", "--max-loras", "2") as served:
        told = {"kind": "server", "model": "tiny", "url": served.url, "load_by": "adapter"}
        engines = [open_engine(told, arm, renderer()) for arm in arms]
        base = policy(seed=0, **WIDE)
        for seed in range(2):
            for number, (arm, engine) in enumerate(zip(arms, engines, strict=True)):
                learn(arm, 10 * seed + number)
                assert largest_difference(arm, engine, 0.7) < MOST
                assert greedy(engine) == greedy(open_engine("local", arm, renderer()))
        assert largest_difference(base, open_engine(told, base, renderer()), 1.0) < MOST
        for arm, engine in zip(arms, engines, strict=True):
            assert largest_difference(arm, engine, 1.0) < MOST
        assert [engine.syncs for engine in engines] == [2, 2], "none is handed over twice"
        served.kill()
        served.start()
        assert largest_difference(arms[0], engines[0], 1.0) < MOST
        big = policy(seed=0, **WIDE)
        attach(big, Adapter(rank=16), seed=0)
        with pytest.raises(UserError, match="rank") as refused:
            greedy(open_engine(told, big, renderer()))
        assert "--max-lora-rank" in refused.value.fix


def learn(arm, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in (p for p in arm.parameters() if p.requires_grad):
            weight.add_(0.2 * torch.randn(weight.shape, generator=generator))


def test_behind_its_server(server):
    student = policy(seed=5, **WIDE)
    check(student, open_engine({"kind": "server", "model": "tiny", "url": server.url}, student, renderer()))


def test_a_server_that_was_killed_and_started_again_is_given_the_weights_anew(server):
    student = policy(seed=6, **WIDE)
    engine = open_engine({"kind": "server", "model": "tiny", "url": server.url, "attempts": 3}, student, renderer())
    before = greedy(engine)
    server.kill()
    with pytest.raises(UserError, match="died: no answer after 3 attempts"):
        greedy(
            open_engine({"kind": "server", "model": "tiny", "url": server.url, "attempts": 3, "restarts": 0}, student, renderer())
        )
    server.start()
    assert greedy(engine) == before
    assert engine.syncs == 2
