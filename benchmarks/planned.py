"""What `--plan` predicts beside what happens, on models of random weights: `python -m benchmarks.planned docs`.

Every case is an experiment of its own: a model in transformers' format (the llama architecture), its rows, two optimizer steps.
Its stages run as in any other run, each in a process of its own, whose peak memory and seconds the runner notes. The
prediction is made before.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import corpus

if TYPE_CHECKING:
    from evenhand.plan.plan import Plan
    from evenhand.run_experiment import Run

QWEN_05 = {
    "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14, "num_key_value_heads": 2,
    "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
"""The sizes of Qwen2.5-0.5B: 494M parameters."""
SMALL = {
    "hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 8, "num_attention_heads": 6, "num_key_value_heads": 2,
    "vocab_size": 16000, "tie_word_embeddings": True,
}  # fmt: skip
"""20M parameters."""
MIDDLE = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
    "vocab_size": 49152, "tie_word_embeddings": True,
}  # fmt: skip
"""The shape of SmolLM2-135M."""
TOKENIZED = 8000
"""Words of the tokenizer: a model may have more embeddings than its tokenizer has tokens, as Qwen's has."""


@dataclass(frozen=True, kw_only=True)
class PlannedCase:
    """One experiment. `train` is added to its `train` section, `rows` are per step."""

    name: str
    method: str
    shape: Mapping[str, Any]
    dtype: str = "float32"
    prompt: int = 128
    completion: int = 128
    rows: int = 2
    train: Mapping[str, Any] = field(default_factory=dict)
    arm: Mapping[str, Any] = field(default_factory=dict)

    def experiment(self, folder: Path) -> dict[str, Any]:
        """The file's content; `folder` has the model and the rows."""
        data = {"demonstrations": "demonstrations.jsonl", "preferences": "preferences.jsonl", "prompts": "prompts.jsonl"}
        reward = {"reward": {"kind": "length", "unit": "words"}} if self.method in ("grpo", "rloo", "ppo") else {}
        return {
            "name": "planned",
            "model": {"path": str(folder / "model"), "dtype": self.dtype, "template": "plain"},
            "data": {**{k: str(folder / v) for k, v in data.items()}, "holdout": 0.25},
            "lengths": {"prompt": self.prompt, "completion": self.completion},
            "train": {"steps": 2, "prompts_per_step": self.rows, "tokens_per_microbatch": 1024, **self.train},
            "seeds": [0],
            "baseline": "base",
            "arms": {"base": {"method": "start"}, "arm": {"method": self.method, "initial_policy": "base", **self.arm, **reward}},
            "evaluation": {"prompts": 2},
            "judge": {"reward": {"kind": "length", "unit": "words"}, "self_test": 0},
        }


LORA = {"adapter": {"rank": 16}}
CASES = (
    PlannedCase(name="0.5B SFT, all weights, fp32", method="sft", shape=QWEN_05, prompt=64, completion=192),
    PlannedCase(name="0.5B SFT, all weights, bf16", method="sft", shape=QWEN_05, dtype="bfloat16", prompt=64, completion=192),
    PlannedCase(name="0.5B DPO, LoRA, fp32", method="dpo", shape=QWEN_05, train=LORA, prompt=128, completion=96),
    PlannedCase(name="0.5B DPO, LoRA, bf16", method="dpo", shape=QWEN_05, dtype="bfloat16", train=LORA, completion=96),
    PlannedCase(name="0.5B DPO, all weights, bf16", method="dpo", shape=QWEN_05, dtype="bfloat16", completion=96),
    PlannedCase(
        name="0.5B GRPO, LoRA, fp32", method="grpo", shape=QWEN_05, train=LORA, prompt=96, completion=48,
        arm={"completions_per_prompt": 4},
    ),
    PlannedCase(
        name="0.5B SFT, checkpointing, fp32", method="sft", shape=QWEN_05, prompt=64, completion=320,
        train={"gradient_checkpointing": True},
    ),
    PlannedCase(name="135M DPO, all weights, fp32", method="dpo", shape=MIDDLE, prompt=256, completion=128, rows=2),
    PlannedCase(
        name="135M GRPO, all weights, fp32", method="grpo", shape=MIDDLE, prompt=96, completion=48,
        arm={"completions_per_prompt": 4},
    ),
    PlannedCase(name="20M reward model, fp32", method="reward_model", shape=SMALL, prompt=256, completion=256, rows=4),
)  # fmt: skip


def write(case: PlannedCase, folder: Path, *, weights: bool = True) -> None:
    """The model (its config alone without `weights`), with a tokenizer and a chat template, and rows of the case's lengths."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    tokenizer = corpus.tokenizer(TOKENIZED)
    torch.manual_seed(0)
    config = LlamaConfig(**case.shape, max_position_embeddings=4096, eos_token_id=1, pad_token_id=0, bos_token_id=None)
    config.save_pretrained(folder / "model")
    if weights:
        AutoModelForCausalLM.from_config(config, dtype=getattr(torch, case.dtype)).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    draw = np.random.default_rng(0)

    def text(length: int) -> str:
        return " ".join(f"w{i}" for i in draw.integers(corpus.SPECIAL, TOKENIZED, length))

    def answer() -> str:
        return text(int(draw.integers(round(0.6 * case.completion), case.completion)))

    kinds = {"demonstrations": ("completion",), "preferences": ("chosen", "rejected"), "prompts": ()}
    for kind, names in kinds.items():
        rows = [{"prompt": text(case.prompt - 8), **{n: answer() for n in names}} for _ in range(4 * case.rows)]
        (folder / f"{kind}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


def nodes(prepared: Run) -> Plan:
    """The plan cut down to the trained arm and what it needs."""
    wanted, left = set(), ["arms/arm/seed-0"]
    while left:
        name = left.pop()
        wanted.add(name)
        left += [n for n in prepared.plan[name].needs if n not in wanted]
    return replace(prepared.plan, nodes=tuple(n for n in prepared.plan.nodes if n.name in wanted))


def measure(case: PlannedCase, folder: Path, threads: int) -> list[dict[str, Any]]:
    """What each stage of the case was said to hold and to take, and what it did."""
    from evenhand.plan.costs.predict import costs
    from evenhand.run_experiment import prepare
    from evenhand.runner.local import run
    from evenhand.store import spent

    write(case, folder)
    prepared = prepare(case.experiment(folder), [f"runtime.threads={threads}"], folder / "run")
    plan = nodes(prepared)
    said = costs(plan, prepared.store, threads=threads)
    outcome = run(plan, prepared.store, folder / "run", workers=1, threads=threads)
    if not outcome.ok:
        raise SystemExit(f"{case.name}: {outcome.errors}")
    rows = []
    for stage in said.stages:
        took, cost = spent.read(prepared.store.root, plan[stage.node].key), stage.predicted
        if took is not None and cost is not None and plan[stage.node].kind in ("fit", "reference"):
            stage_name = "training" if plan[stage.node].kind == "fit" else "reference pass"
            rows.append({"case": case.name, "stage": stage_name, "spent": asdict(took), "predicted": asdict(cost)})
    return rows


def predict(case: PlannedCase, folder: Path, threads: int) -> dict[str, Any]:
    """The same predictions without a run and without weights."""
    from evenhand.plan.costs.predict import costs
    from evenhand.run_experiment import prepare

    write(case, folder, weights=False)
    plan = nodes(prepared := prepare(case.experiment(folder), [f"runtime.threads={threads}"], folder / "run"))
    found = costs(plan, prepared.store, threads=threads).stages
    named = {"fit": "training", "reference": "reference pass"}
    return {named[plan[s.node].kind]: asdict(s.predicted) for s in found if s.predicted is not None}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in Markdown, predictions beside facts; time is what the processor computed, waits for the disk left out."""
    head = ["case", "stage", "memory, predicted", "peak memory", "", "processor time, predicted", "processor time", ""]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        cost, took = row["predicted"], row["spent"]
        seconds = cost["seconds"] - cost["waiting"]
        lines.append([
            row["case"], row["stage"], f"{cost['peak_bytes'] / GIB:.2f} GiB", f"{took['peak_bytes'] / GIB:.2f} GiB",
            apart(cost["peak_bytes"], took["peak_bytes"]), f"{seconds:.0f} s", f"{took['processor_seconds']:.0f} s",
            apart(seconds, took["processor_seconds"]),
        ])  # fmt: skip
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def apart(said: float, was: float) -> str:
    """How far a prediction is off.

    >>> apart(11, 10), apart(8.5, 10)
    ('+10 %', '-15 %')
    """
    return f"{said / was - 1:+.0%}".replace("%", " %")


def page(found: Mapping[str, Any], text: str) -> str:
    """The page with the table in its place."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    m = found["machine"]
    where = f"{m['name']}, {m['threads']} thread, {m['memory_bytes'] / GIB:.0f} GiB; {found['date']}."
    return f"{before}{BEGIN}\n\n{where}\n\n{table(found['rows'])}\n\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the cases (`--only` some), keep what was found in docs/planned.json, and write the table into docs/scaling.md."""
    from evenhand.plan.costs import keep

    parser = argparse.ArgumentParser()
    parser.add_argument("docs", type=Path)
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="predict anew what was measured; run nothing")
    given = parser.parse_args(arguments)
    kept = given.docs / "planned.json"
    found = json.loads(kept.read_text()) if kept.exists() else {"rows": []}
    for case in CASES:
        if given.only and case.name not in given.only:
            continue
        with tempfile.TemporaryDirectory(prefix="evenhand-planned-") as folder:
            if given.again:
                said = predict(case, Path(folder), given.threads)
                rows = [{**r, "predicted": said[r["stage"]]} for r in found["rows"] if r["case"] == case.name]
            else:
                rows = measure(case, Path(folder), given.threads)
        order = [c.name for c in CASES]
        others = [r for r in found["rows"] if r["case"] != case.name]
        found["rows"] = sorted([*others, *rows], key=lambda r: order.index(r["case"]))
        machine = keep.machine(Path("nowhere"), given.threads)
        found |= {"machine": asdict(machine) if machine else None, "date": time.strftime("%Y-%m-%d")}
        kept.write_text(json.dumps(found, indent=1) + "\n")
        print(table(rows), flush=True)
    scaling = given.docs / "scaling.md"
    scaling.write_text(page(found, scaling.read_text()))


BEGIN, END = "<!-- planned: begin -->", "<!-- planned: end -->"
GIB = 2**30

if __name__ == "__main__":
    main()
