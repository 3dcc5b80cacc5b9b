"""docs/benchmarks.md from docs/benchmarks.json. Nothing is measured here."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
NAMES = {
    "ours": "evenhand", "shipped": "TRL as shipped", "tuned": "TRL tuned", "generate": "generate", "logits": "full logits",
}  # fmt: skip
SHORT = {"float32": "fp32", "bfloat16": "bf16"}


def render(pages: Mapping[str, Any]) -> str:
    """The whole page; a part per device."""
    parts = [INTRODUCTION]
    for device, title in (("cpu", "Processor"), ("cuda", "GPU")):
        if device in pages:
            parts.append(f"## {title}\n\n{part(pages[device])}")
    if "cuda" not in pages:
        parts.append(f"## GPU\n\n{NO_GPU}")
    return "\n\n".join([*parts, METHOD]) + "\n"


def part(page: Mapping[str, Any]) -> str:
    """Machine line, what was checked, the tables of log-probs alone, of training and of sampling; where there are any."""
    blocks = [machine(page)]
    if page.get("checks"):
        blocks += ["### The same as float64 on the processor", checks(page["checks"])]
    if page.get("quickstart"):
        blocks += ["### The quickstart's verdicts", quickstart(page["quickstart"])]
    if page.get("log_probs"):
        blocks += ["### Log-probs alone", log_probs(page["log_probs"], page["peak"])]
    if page["training"]:
        blocks += ["### One optimizer step", training(page["training"], page["peak"]), agreement(page["training"])]
    if page["sampling"]:
        blocks += ["### Sampling", sampling(page["sampling"])]
    return "\n\n".join(b for b in blocks if b)


def machine(page: Mapping[str, Any]) -> str:
    m = page["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in m["versions"].items())
    rates = ", ".join(f"{rate(v)} in {k}" for k, v in page["peak"].items())
    host = f" (host: {m['host']})" if "host" in m else ""
    return (
        f"{m['device']}{host}, {m['cores']} cores ({m['threads']} threads per side; load {m['load']} before the run), "
        f"{m['memory_gb']} GB; Python {m['python']}, {versions}. Matrix products in this run: {rates}. "
        f"{page['date']}, {page['minutes']} minutes."
    )


def checks(found: Mapping[str, Any]) -> str:
    """A row per test: how many cases passed, and the largest of its errors as a share of what is allowed; then what failed."""
    rows, lines = found["cases"], []
    for name, its in itertools.groupby(rows, key=lambda r: r["name"].split("[")[0]):
        cases = list(its)
        passed = [r for r in cases if r["outcome"] == "passed"]
        shares = [e / allowed for r in passed for e, allowed in r["errors"]]
        worst = f"{max(shares):.0%}" if shares else ""
        lines.append([name.removeprefix("test_").replace("_", " "), f"{len(passed)} of {len(cases)}", worst])
    notes = [f"- {found['problem']}"] if found["problem"] else []
    notes += [f"- `{r['name']}`: {r['outcome']}. {r['why']}" for r in rows if r["outcome"] != "passed"]
    return table(["test", "passed", "largest error, of what is allowed"], lines) + "\n\n" + "\n".join(notes)


def quickstart(found: Mapping[str, Any]) -> str:
    """Verdicts of the same smaller quickstart on the processor and here."""
    lines = [[name, *(found["verdicts"][d].get(name, "none") for d in found["verdicts"])] for name in found["contrasts"]]
    problems = "".join(f"\n\n{device}: {why}" for device, why in found["problems"].items() if why)
    return table(["contrast", *found["verdicts"]], lines) + problems


def log_probs(rows: Sequence[Row], peak: Mapping[str, float]) -> str:
    """Forward and backward pass of the op; the aims stand below."""
    lines = []
    for row in rows:
        for number, (name, side) in enumerate(row["sides"].items()):
            precision = name.split()[1]
            shown = ["failed: " + reason(side), "", ""]
            if "median" in side:
                share = row["flops"] / side["median"] / peak[precision]
                shown = [f"{1e3 * side['median']:.3g}", f"{side['bytes'] / 2**30:.2f} GB", f"{share:.0%}"]
            lines.append([row["title"] if number == 0 else "", spoken(name), *shown])
    return table(["rows x width x vocabulary", "way", "milliseconds", "peak memory", "share of peak"], lines) + f"\n\n{OP_AIM}"


def training(rows: Sequence[Row], peak: Mapping[str, float]) -> str:
    """Seconds, ratios, memory and share of the peak; one line per side and precision."""
    head = ["step", "side", "seconds", "TRL / evenhand", "peak memory", "TRL / evenhand", "share of peak"]
    lines = []
    for row in rows:
        for number, side in enumerate(row["sides"]):
            title = f"**{row['title']}**" if number == 0 else ""
            lines.append([title, spoken(side), *cells(row, side, peak)])
    aimed = [r for r in rows if r["target"] > 1]
    held = "; ".join(dict.fromkeys(f"{r['state'] / 2**30:.2f} GB for {r['model']}" for r in rows))
    return table(head, lines) + f"\n\n{STATE}{held}." + (f"\n\n{AIMS}\n\n{aims(aimed)}" if aimed else "")


def aims(rows: Sequence[Row]) -> str:
    """What was aimed at, and where it is met: a cell per side of TRL and precision, `time / memory`, bold where it is."""
    rivals = list(dict.fromkeys(name for r in rows for name in r["sides"] if not name.startswith("ours")))
    lines = [[f"{r['title']}: {r['target']:g}x", *(met(r, name) for name in rivals)] for r in rows]
    return table(["aimed at", *map(spoken, rivals)], lines)


def met(row: Row, name: str) -> str:
    """Ratios of time and memory to our side in the same precision, each bold where the aim is met."""
    side, mine = row["sides"].get(name, {}), row["sides"].get(f"ours {name.split()[1]}", {})
    if "median" not in side or "median" not in mine:
        return "not measured"
    pairs = ((side["median"] / mine["median"], row["target"]), (side["bytes"] / mine["bytes"], MEMORY))
    shown = " / ".join(f"**{ratio:.1f}**" if ratio >= aim else f"{ratio:.1f}" for ratio, aim in pairs)
    return shown + ("\\*" if side["bytes"] / MEMORY < row["state"] else "")


def spoken(side: str) -> str:
    """A side's name on the page: `tuned bfloat16` is TRL tuned, bf16."""
    name, _, precision = side.partition(" ")
    return f"{NAMES[name]}, {SHORT[precision]}" if precision else NAMES[name]


def cells(row: Row, name: str, peak: Mapping[str, float]) -> list[str]:
    """One side: seconds, ratio, memory, ratio (both to our side in the same precision), share of the matmul peak."""
    side, precision = row["sides"][name], name.split()[1]
    if "median" not in side:
        return ["failed: " + reason(side), "", "", "", ""]
    mine = row["sides"].get(f"ours {precision}", {})
    rival = not name.startswith("ours") and "median" in mine
    return [
        f"{side['median']:.3g}",
        f"{side['median'] / mine['median']:.1f}" if rival else "",
        f"{side['bytes'] / 2**30:.2f} GB",
        f"{side['bytes'] / mine['bytes']:.1f}" if rival else "",
        f"{row['flops'] / side['median'] / peak[precision]:.0%}",
    ]


def reason(side: Row) -> str:
    """The last line of an error."""
    return (side.get("error", "").strip().splitlines() or ["not measured"])[-1][:120]


def agreement(rows: Sequence[Row]) -> str:
    """That both sides computed the same thing: loss and gradient norm of the first step, on the same weights and rows."""
    lines, references, head = [], [], ["step"]
    for row in rows:
        firsts = {n: s["first"] for n, s in row["sides"].items() if "grad_norm" in s.get("first", {})}
        if row["kind"] != "grpo" and len(firsts) > 1:  # GRPO samples, so its two sides see different completions
            lines.append([row["title"], *(f"{f['loss']:.5g} / {f['grad_norm']:.4g}" for f in firsts.values())])
            head = ["step", *map(spoken, firsts)]
        found = [(n, f["reference_seconds"]) for n, f in firsts.items() if "reference_seconds" in f]
        references += [f"{s:.3g} s ({row['title']}, {SHORT[n.split()[1]]})" for n, s in found]
    text = f"The same work: loss / gradient norm of the first step.\n\n{table(head, lines)}" if lines else ""
    return text + (f"\n\n{REFERENCES}{'; '.join(references)}." if references else "")


def sampling(rows: Sequence[Row]) -> str:
    """Tokens per second, both sides."""
    head = ["rows", "prompt", "new tokens", "completions per prompt", "evenhand tok/s", "generate tok/s", "ratio"]
    lines = []
    for r in rows:
        ours, theirs = speed(r, "ours"), speed(r, "generate")
        ratio = f"{ours / theirs:.1f}" if ours and theirs else ""
        lines.append([str(r["rows"]), str(r["prompt"]), str(r["new"]), str(r["group"]), number(ours), number(theirs), ratio])
    share = rows[0]["greedy_share"]
    same = f" Greedy decoding gives the same token in {share:.1%} of cases." if share is not None else ""
    slower = [r["name"] for r in rows if (a := speed(r, "ours")) and (b := speed(r, "generate")) and a < b]
    verdict = f"slower at {', '.join(slower)}" if slower else "met"
    note = f"Aimed at: faster than `generate` at every shape ({verdict}); {SAMPLING_AIM:,} tok/s at 128 rows x 128 tokens."
    return f"Model: {rows[0]['model']}; {SAMPLED_IN}.{same}\n\n{table(head, lines)}\n\n{note}"


def speed(row: Row, name: str) -> float | None:
    median = row["sides"].get(name, {}).get("median")
    return row["rows"] * row["new"] / median if median else None


def number(value: float | None) -> str:
    return "failed" if value is None else f"{value:,.0f}"


def rate(flops: float) -> str:
    return f"{flops / 1e12:,.0f} TFLOP/s" if flops > 1e13 else f"{flops / 1e9:,.0f} GFLOP/s"


def table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(r) + " |" for r in rows)


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}"


def interval(ends: Sequence[float] | None) -> str:
    """Both ends of an interval of shares, in percent."""
    return f"{percent(ends[0])} to {percent(ends[1])}" if ends else "–"


def line(row: Row) -> str:
    """A training row for the terminal."""
    shown = [f"{spoken(n)} {s['median']:.3g} s, {s['bytes'] / 2**30:.2f} GB" for n, s in row["sides"].items() if "median" in s]
    failed = [f"{spoken(n)} failed: {reason(s)}" for n, s in row["sides"].items() if "error" in s]
    return f"{row['title']}: " + "; ".join(shown + failed)


def sampling_line(row: Row) -> str:
    """A sampling row for the terminal."""
    return f"sampling {row['name']}: evenhand {number(speed(row, 'ours'))} tok/s, generate {number(speed(row, 'generate'))} tok/s"


MEMORY = 3.0
"""Aimed at in every row: a third of TRL's peak."""
SAMPLING_AIM = 4_000
SAMPLED_IN = "both sides in fp32 on a processor, in bf16 on a GPU"
STATE = "Weights, gradients and AdamW's two moments are part of every side's peak, 16 bytes per parameter: "
AIMS = (
    "Aimed at, and met where bold: how many times faster / how many times less memory, each pair in the same precision. "
    "\\* A third of that peak is less than weights, gradients and moments alone: no training in fp32 with AdamW gets there."
)

OP_AIM = "Aimed at, in bf16 on an H200: 60 ms and 6 GB for 8,192 x 4,096 x 151,936, states, weight and gradients included."
NO_GPU = """Not measured: no GPU was at hand, and nothing here was ever run on one. `make bench-gpu` writes this part: one command
of at most nine minutes on a machine with one GPU (made for an H200 with Python 3.12, torch 2.11 and transformers 5.17), without
a network. Packages that are missing there go along as wheels, `make bench-gpu WHEELS=DIR`, 5 MB made elsewhere by

```
pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_17_x86_64 -d DIR \\
    trl==1.16.0 datasets dill multiprocess pydantic==2.14.3 pydantic_core==2.50.4 annotated-types typing-inspection \\
    vaderSentiment
```

It compares every kernel with float64 on the processor (`pytest -m gpu` does that alone) and a small quickstart's verdicts with
the processor's, then measures log-probs alone, optimizer steps of 0.5B and 1.5B beside TRL, and sampling. What a part finds is
written as it is found: a run that is cut keeps what it has. `python -m benchmarks.gpu_lane --device cpu --tiny` runs the same
on a processor, with figures that mean nothing. Aimed at: every step 1.5 times as fast as TRL tuned, 45 % of the measured bf16
peak for DPO at 1.5B, the log-prob op (8,192 x 4,096 x 151,936, forward and backward) in 60 ms and 6 GB."""

INTRODUCTION = """# Beside TRL

evenhand and [TRL](https://github.com/huggingface/trl) 1.16.0 on the same model, data, batch and optimizer, in one run.
How a step's time and memory grow with lengths, groups and models is in [growth.md](growth.md). Where it
goes, beside what it could take at least, is in [profile.md](profile.md).
Write this page anew with `make bench` (about ten minutes on two cores). Sides are compared in the same precision: fp32, and
bf16 products over fp32 weights, which is TRL's own choice. **TRL as shipped** has its other defaults: gradient checkpointing, 8
rows per forward pass, reference log-probs in every step. **TRL tuned** has no checkpointing, takes all rows at once, computes
reference log-probs once and does not log."""

REFERENCES = (
    "evenhand computes reference log-probs once and shares them between arms and seeds, so its DPO steps and those of TRL tuned "
    "hold none; TRL as shipped computes them in every step. One pass over a step's pairs takes evenhand "
)

METHOD = """## How it is measured

- Figures are of the code of the date above. What has changed speed since is in the changelog.
- Each side runs in its own process. The processes take turns, one optimizer step each, after one untimed step (two on a
  GPU); figures are medians of up to five (nine).
- A step is everything from one optimizer step's end to the next one's: fetching and packing or padding the batch, forward,
  backward, clipping, the update, metrics. TRL is driven through its own `Trainer.train()`, held between steps by a callback.
  Loading models and tokenising the data set are left out on both sides.
- Weights are random, text is random words of a vocabulary with one word per token, so both sides see the same token ids.
  Completions of fixed data have 60 % to 140 % of the length given, the end token included. GRPO and sampling have no end
  token: every completion has its full length.
- evenhand runs micro-batches of 2,048 tokens (GRPO: 1,024; on a GPU 16,384). Its gradient does not depend on that.
- Peak memory is the peak while stepping minus what the process held once its libraries were imported (on a GPU: the
  allocator's peak).
- Share of the peak: the arithmetic a step needs at least (every prompt once, no padding, the vocabulary at completion tokens
  only, backward twice forward, no recomputation), divided by its time and by the rate of a large matrix product in this run.
  Both sides are credited with this same minimum.
- `generate` gets token ids of equal length and gives token ids; evenhand gets and gives text."""


def main() -> None:
    """Write the page again from the kept figures: `python -m benchmarks.page docs`."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    (folder / "benchmarks.md").write_text(render(json.loads((folder / "benchmarks.json").read_text())))


if __name__ == "__main__":
    main()
