"""A checkpoint holds the same tensors whatever number of ranks wrote it, and any number goes on from it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file

from evenhand.train import checkpoint, sharded_files, tensor_files
from evenhand.train.ranks import ONE, Ranks
from tests.battery import variants
from tests.battery.world import items_for
from tests.ranks.two import Steps, made, on_ranks

TOLERANCE = 1e-8
"""Of weights in float64 after two more steps of 1e-3: sums in another order, which Adam divides by the root of a square."""


def steps(ranks: Ranks, dtype: str) -> Steps:
    method = variants.build("dpo", steps=6, max_tokens=8)
    model = made(method, dtype, adapter=False)
    ranks.placed(model)
    return Steps(model, method, items_for(method, prompts=6), ranks)


def move(run: Steps, count: int) -> None:
    for _ in range(count):
        run.gradients()
        run.optimizer.step(1.0)


def save_and_go_on(out: Path, dtype: str, ranks: Ranks, scratch: Path, report: Any) -> None:
    run = steps(ranks, dtype)
    move(run, 3)
    folder = out if ranks.first else scratch
    checkpoint.save(folder, step=3, model=run.model, optimizer=run.optimizer, state={}, more={"x": run.weights()}, ranks=ranks)
    move(run, 2)
    weights = run.weights()
    if ranks.first:
        torch.save(weights, out / "weights")


def go_on(out: Path, dtype: str, name: str, ranks: Ranks, scratch: Path, report: Any) -> None:
    run = steps(ranks, dtype)
    checkpoint.load(checkpoint.latest(out), model=run.model, optimizer=run.optimizer)
    move(run, 2)
    weights = run.weights()
    if ranks.first:
        torch.save(weights, out / name)


@pytest.fixture(scope="module", params=["float64", "bfloat16"])
def written(request, tmp_path_factory) -> tuple[Path, str]:
    """By two ranks that hold half of everything each; weights of bf16 have masters in fp32."""
    out = tmp_path_factory.mktemp("two")
    on_ranks(partial(save_and_go_on, out, request.param), 2, out, shard="fsdp")
    return out, request.param


FURTHER = [pytest.param(3, "fsdp", marks=pytest.mark.slow), pytest.param(2, "ddp", marks=pytest.mark.slow)]


@pytest.mark.parametrize(("size", "shard"), [(1, "ddp"), (2, "fsdp"), *FURTHER])
def test_any_number_of_ranks_goes_on(written, size, shard):
    out, dtype = written
    work = partial(go_on, out, dtype, f"weights-{size}-{shard}")
    work(ONE, out, None) if size == 1 else on_ranks(work, size, out, shard=shard)
    a, b = torch.load(out / "weights"), torch.load(out / f"weights-{size}-{shard}")
    exact = (size, shard) == (2, "fsdp")
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=0 if exact else TOLERANCE if dtype == "float64" else 4e-3)


def test_each_rank_writes_its_part_and_nobody_the_whole(written):
    """Two of equal size, of every tensor that is spread; what all have alike, such as counts of steps, the first writes."""
    folder = checkpoint.latest(written[0])
    for name in ("model", "optimizer"):
        parts = sorted((folder / name).iterdir())
        assert [p.suffix for p in parts] == [".safetensors"] * 2, "nothing is pickled"
        sizes = [sum(t.numel() for t in load_file(p).values()) for p in parts]
        whole = sum(t.numel() for t in read(folder / name).values())
        assert sum(sizes) == whole
        assert max(sizes) < 0.6 * whole
    counts = load_file(folder / "optimizer.safetensors")
    assert counts
    assert all(key.startswith("step.") and value.item() == 3 for key, value in counts.items())


def read(folder: Path) -> dict[str, torch.Tensor]:
    """What is spread over the files of a folder, whole."""
    metadata = dcp.HuggingFaceStorageReader(path=str(folder)).read_metadata().state_dict_metadata
    found = {name: torch.empty(of.size, dtype=of.properties.dtype) for name, of in metadata.items()}
    sharded_files.read(folder, found)
    return found


def test_the_tensors_are_those_of_one_process(written, tmp_path):
    out, dtype = written
    save_and_go_on(tmp_path, dtype, ONE, tmp_path, None)
    for name in ("model", "optimizer", "x"):
        one, folder = load_file(checkpoint.latest(tmp_path) / f"{name}.safetensors"), checkpoint.latest(out)
        many = load_file(path) if (path := folder / f"{name}.safetensors").exists() else {}
        many |= read(folder / name) if (folder / name).is_dir() else {}
        assert {k: (v.shape, v.dtype) for k, v in one.items()} == {k: (v.shape, v.dtype) for k, v in many.items()}
        for key in one if dtype == "float64" else ():
            torch.testing.assert_close(one[key], many[key], rtol=1e-6, atol=1e-7)


def test_tensors_of_one_process_are_one_file(tmp_path):
    """And are read into places that are there already."""
    tensor_files.write({"a": torch.arange(3.0), "b": torch.ones(2, 2, dtype=torch.bfloat16)}, tmp_path / "x")
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
    assert tensor_files.names(tmp_path / "x") == {"a", "b"}
    places = {"a": torch.zeros(3), "b": torch.zeros(2, 2, dtype=torch.bfloat16)}
    tensor_files.read(tmp_path / "x", places)
    assert places["a"].tolist() == [0.0, 1.0, 2.0]
    assert places["b"].float().sum().item() == 4.0
