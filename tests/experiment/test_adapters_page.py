"""The page on adapters says what the code does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from evenhand.models.adapter_config import Adapter
from evenhand.models.adapters import size
from evenhand.plan import parameter_count, plan
from evenhand.spec.read import read_experiment
from tests.conftest import ROOT
from tests.stages.performed import perform

PAGE = (ROOT / "docs/adapters.md").read_text()
TINY = ROOT / "tests/stages/tiny.yaml"


def test_the_example_means_what_its_comments_say():
    text = PAGE.split("```yaml\n")[1].split("```")[0]
    given = {**yaml.safe_load(text), "name": "x", "data": {"world": "quickstart"}, "initial_policy": "base"}
    given |= {"model": {"pretrain": {"train": {"steps": 1}}}}
    arms = read_experiment(given).value.all_arms()
    assert arms["dpo"].train.adapter == Adapter(rank=16, alpha=32)
    assert arms["grpo"].train.adapter == Adapter(rank=8, alpha=32, targets=("q_proj", "v_proj"))
    assert arms["full"].train.adapter is None
    assert read_experiment(given).value.all_reward_models()["rm"].train.adapter == Adapter()


def test_the_command_runs(tmp_path: Path):
    """Its overrides, on an experiment of the same arms that takes seconds: every stage up to the arm that names layers."""
    line = next(x for x in PAGE.splitlines() if x.startswith("evenhand run quickstart"))
    overrides = shlex.split(line)[3:]
    assert read_experiment(ROOT / "src/evenhand/builtin/quickstart.yaml", overrides)
    experiment = read_experiment(TINY, overrides).value
    told = dict(x.split(": ", 1) for x in parameter_count.lines(experiment))
    assert set(told) == {"arms.dpo", "arms.rloo", "arms.grpo"}
    assert told["arms.grpo"].startswith("adapter of rank 8, alpha 32, on q_proj, v_proj: ")
    counts = re.search(r"([\d,]+) of ([\d,]+) weights learn \((.+)%\)", told["arms.grpo"])
    assert counts is not None
    learning, total = (int(text.replace(",", "")) for text in counts.groups()[:2])
    assert float(counts[3]) == pytest.approx(100 * learning / total, abs=0.005), "a share is said in per cent"
    nodes = plan.build(experiment)
    done: dict[str, Path] = {}

    def made(name: str) -> Path:
        if name not in done:
            node = nodes[name]
            inputs = {role: made(other) for role, other in node.inputs.items()}
            done[name] = perform(node.kind, node.spec, inputs, tmp_path / str(len(done)), seed=node.seed)
        return done[name]

    assert (made(nodes.arms["grpo"][0]) / "adapter/adapter_model.safetensors").stat().st_size < 100_000


def test_the_arithmetic_is_that_of_the_code():
    from transformers import AutoConfig

    shape = {
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
    }  # fmt: skip
    network = parameter_count.skeleton(AutoConfig.for_model("qwen2", **shape))
    everything, learning = sum(p.numel() for p in network.parameters()), size(network, Adapter(rank=16))
    # per block: q and o 2 x 1792, k and v 2 x 1024, gate, up and down 3 x 5760
    assert learning == 16 * 24 * (2 * 1792 + 2 * 1024 + 3 * 5760)
    state, whole = (4 * everything + 16 * learning) / 1e9, 16 * everything / 1e9
    assert (
        f"P = {everything / 1e6:.0f}M; at rank 16 L = {learning / 1e6:.1f}M, {state:.1f} GB of weights, gradients and moments "
        f"in place of {whole:.1f}, a checkpoint of {12 * learning / 1e6:.0f} MB in place of {12 * everything / 1e9:.1f} GB."
    ) in " ".join(PAGE.split())
