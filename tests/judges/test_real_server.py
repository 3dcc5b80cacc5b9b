"""The whole path against a real OpenAI-compatible server: `transformers serve` with a small random model, killed half-way."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from evenhand.data.jsonl import write_groups
from evenhand.types import Completion, Group, Prompt

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in ("fastapi", "uvicorn", "openai")),
        reason="needs transformers[serving]",
    ),
]
WORDS = "red green blue white"
TEMPLATE = """
name: colours
kind: pair
user: "{question} {answer_a} {answer_b}"
patterns: ['(red|green|blue|white)']
labels: {red: 1, green: 0, blue: 1, white: 0}
max_tokens: 12
"""
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
PAIRS = 24


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from evenhand.models.load import new_policy, save
    from evenhand.worlds.tokenizer import word_tokenizer

    tokenizer = word_tokenizer([WORDS, " " + WORDS])
    shape = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "max_position_embeddings": 512, "initializer_range": 0.3,
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("served") / "model"
    save(new_policy(shape, tokenizer, seed=1, device="cpu"), tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def server(model: Path, tmp_path_factory: pytest.TempPathFactory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1", "--port", str(port)]
    log = (tmp_path_factory.mktemp("log") / "server.log").open("w+")
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=log, stderr=log, start_new_session=True)
    url = f"http://127.0.0.1:{port}/v1"
    body = {"model": str(model), "messages": [{"role": "user", "content": "red"}], "max_tokens": 2}
    try:
        for _ in range(180):
            time.sleep(1)
            try:
                if httpx.post(f"{url}/chat/completions", json=body, timeout=120).status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None, Path(log.name).read_text()[-2000:]
        else:
            pytest.fail("the server did not start: " + Path(log.name).read_text()[-2000:])
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(path: Path, word: str) -> Path:
    groups = [
        Group(prompt=Prompt(content=f"{WORDS} {i}", id=f"p{i}"), completions=(Completion(content=f"{word} " * (i % 5 + 1)),))
        for i in range(PAIRS)
    ]
    write_groups(path, groups)
    return path


def lines(path: Path) -> list[dict]:
    return (
        [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        if path.exists()
        else []
    )


def test_killed_half_way_the_second_run_reuses_every_answer(server: str, model: Path, tmp_path: Path) -> None:
    a, b = answers(tmp_path / "a.jsonl", "blue"), answers(tmp_path / "b.jsonl", "white")
    (tmp_path / "colours.yaml").write_text(TEMPLATE)
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "evenhand.cli", "judge", str(a), str(b), "--model", str(model), "--endpoint", server,
        "--template", str(tmp_path / "colours.yaml"), "--out", str(out), "--concurrency", "2", "--self-test", "0",
    ]  # fmt: skip
    cache = out / "judge-cache.jsonl"
    process = subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True, stdout=subprocess.DEVNULL)
    while len(lines(cache)) < PAIRS // 2:
        assert process.poll() is None, "finished before it could be killed"
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = lines(cache)
    assert len(kept) >= PAIRS // 2
    assert not (out / "verdicts.jsonl").exists()

    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=3000)
    assert done.returncode == 0, done.stderr
    after = lines(cache)
    assert after[: len(kept)] == kept  # nothing was asked twice or overwritten
    assert len({row["key"] for row in after}) == len(after)
    verdicts = lines(out / "verdicts.jsonl")
    assert len(verdicts) == PAIRS
    assert sum(o["attempts"] for v in verdicts for o in v["orders"]) == len(after)
    assert f"{len(after) - len(kept)} asked, {len(kept)} known already" in done.stdout
    assert all(row["usage"]["prompt"] > 0 for row in after)

    third = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=3000)
    assert f"0 asked, {len(after)} known already" in third.stdout
    assert lines(out / "verdicts.jsonl") == verdicts
