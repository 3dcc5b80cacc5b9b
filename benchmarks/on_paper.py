"""A study that was not run: ten arms, five seeds, 8B and 70B on 64 GPUs, by the planner: `python -m benchmarks.on_paper docs`.

Shapes are Llama 3's. The GPU's figures are its maker's (`evenhand.plan.costs.machine.H100`), products at 45 % of the peak. Left
out are traffic between GPUs, and what a sampler made for serving would gain.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evenhand.models.adapter_config import Adapter
from evenhand.plan.costs import seconds
from evenhand.plan.costs.machine import H100
from evenhand.plan.costs.memory import MemoryLoad, SamplingWave, held
from evenhand.plan.costs.network import Network, Precision, network
from evenhand.plan.costs.rows import RowLengths
from evenhand.plan.costs.seconds import Speed
from evenhand.plan.costs.stage import times

BEGIN, END = "<!-- on paper: begin -->", "<!-- on paper: end -->"
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
    "70B": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64},
}
GPUS, SEEDS, MICRO = 64, 5, 8192
PROMPT, COMPLETION = 512, 512
PAIRS, OFFLINE_STEPS, OFFLINE_ROWS = 32_000, 500, 64
ONLINE_STEPS, ONLINE_PROMPTS, GROUP = 200, 64, 8
ASKED = 500
SPEED = Speed(machine=H100, train=1.0, decode=1.0)
GB = 1e9


@dataclass(frozen=True, kw_only=True)
class PaperStage:
    """A kind of stage, how many of it there are, what one takes."""

    name: str
    count: int
    gpus: int
    peak: float
    hours: float
    disk: float

    @property
    def gpu_hours(self) -> float:
        return self.count * self.gpus * self.hours


def opened(shape: str, adapter: Adapter | None, *, scores: bool = False) -> Network:
    from transformers import LlamaConfig

    config = LlamaConfig(vocab_size=128_256, num_key_value_heads=8, tie_word_embeddings=False, **SHAPES[shape])
    return network(config, Precision(dtype="bfloat16"), adapter, scores=scores)


def trained(name: str, count: int, net: Network, *, online: bool, reference: bool) -> PaperStage:
    """An arm on as few GPUs as it fits on, weights spread over them, activations computed twice."""
    answers, prompts = (GROUP, ONLINE_PROMPTS) if online else (2, OFFLINE_ROWS)
    steps = ONLINE_STEPS if online else OFFLINE_STEPS
    rows = RowLengths(sample=((PROMPT, (COMPLETION,) * answers),), count=PAIRS)
    wave = SamplingWave(rows=512, prompt=PROMPT, new=COMPLETION, group=GROUP)
    frozen = net.weight_bytes if online and reference and net.adapter is None else 0.0
    reward = opened("8B", None, scores=True).weight_bytes if online else 0.0
    for gpus in (1, 2, 4, 8, 16, 32, 64):
        beside = (frozen + reward) / gpus
        load = MemoryLoad(
            largest=rows.largest(prompts, MICRO), several=True, steps=steps, beside=beside, checkpointing=True, shards=gpus,
        )  # fmt: skip
        peak = held(net, load, H100).peak
        if peak < 0.95 * H100.memory_bytes:
            break
    batches = rows.step(prompts, MICRO)
    step = sum(seconds.learn(net, b, SPEED, checkpointing=True) for b in batches) / gpus + seconds.update(net, H100, gpus)
    if online:
        whole = times(rows.work(), prompts)
        each = replace(wave, rows=wave.rows // gpus)  # every GPU samples its share, and reads all weights at every token
        step += prompts * GROUP / wave.rows * seconds.sample(net, each, SPEED)
        step += (1 + reference) * seconds.forward(net.frozen(), whole, SPEED) / gpus
    size = net.weight_bytes if net.adapter is None else 2 * net.learning
    return PaperStage(name=name, count=count, gpus=gpus, peak=peak, hours=steps * step / 3600, disk=size)


def study(shape: str, adapter: Adapter | None) -> list[PaperStage]:
    """Five offline and five online arms; the reward model of a seed serves its five online arms, one pass of references all."""
    net, rows = opened(shape, adapter), RowLengths(sample=((PROMPT, (COMPLETION, COMPLETION)),), count=PAIRS)
    frozen = net.frozen()
    gpus = next(n for n in (1, 2, 4, 8) if net.weight_bytes / n < 0.7 * H100.memory_bytes)
    share = net.weight_bytes / gpus
    once = seconds.forward(frozen, times(rows.work(), PAIRS), SPEED) / gpus / 3600
    wave = SamplingWave(rows=ASKED, prompt=PROMPT, new=COMPLETION)
    answers = seconds.sample(frozen, wave, SPEED) / gpus / 3600
    reward = opened("8B", None, scores=True)
    return [
        PaperStage(name="reference log-probs", count=1, gpus=gpus, peak=share + 4e9, hours=once, disk=4 * PAIRS * 1024),
        trained("reward model (8B), one a seed", SEEDS, reward, online=False, reference=False),
        trained("offline arms (5 x 5)", 5 * SEEDS, net, online=False, reference=False),
        trained("online arms (5 x 5)", 5 * SEEDS, net, online=True, reference=True),
        PaperStage(name="answers (10 x 5)", count=10 * SEEDS, gpus=gpus, peak=share + 8e9, hours=answers, disk=0),
    ]  # fmt: skip


def table(stages: list[PaperStage]) -> str:
    """The stages in Markdown, and all of them."""
    lines = [["stage", "how many", "GPUs each", "peak of a GPU", "hours each", "GPU-hours", "disk"], ["---"] * 7]
    for s in stages:
        lines.append([
            s.name, str(s.count), str(s.gpus), f"{s.peak / GB:.0f} GB", f"{s.hours:.2g}", f"{s.gpu_hours:,.0f}",
            f"{s.count * s.disk / GB:,.1f} GB",
        ])  # fmt: skip
    hours = sum(s.gpu_hours for s in stages)
    lines.append(["**all**", "", "", "", f"**{hours / GPUS:.1f}** on {GPUS} GPUs", f"**{hours:,.0f}**",
                  f"**{sum(s.count * s.disk for s in stages) / GB:,.0f} GB**"])  # fmt: skip
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Write the tables into their place in DOCS/scaling.md."""
    parts = [
        f"**{shape}, {'all weights' if adapter is None else 'adapters of rank 16'}**\n\n{table(study(shape, adapter))}"
        for shape in SHAPES
        for adapter in (None, Adapter(rank=16))
    ]
    page = Path(sys.argv[1]) / "scaling.md"
    before, _, rest = page.read_text().partition(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
