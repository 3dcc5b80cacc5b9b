"""Where a step and its sampling spend processor time, beside the two floors that they cannot pass.

`python -m benchmarks.profile docs [NAME ...]` measures the named pieces of work (all of them if none is named), keeps the other
rows of profile.json, and writes profile.md. Arithmetic takes at least its operations over the rate of a large matrix product,
memory at least the bytes that must be moved over the rate of reading. Both rates are taken in turn with every piece of work: on
a shared machine they move by half within minutes. All times are of the processor, in one thread; weights are random, shapes
those of the models that are named.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import corpus, machine, ours, page
from benchmarks.shapes import SMALL, Model, Training

if TYPE_CHECKING:
    from evenhand.models.backbone import Trunk
    from evenhand.protocols import Source, Step
    from evenhand.train.loop import Loop

SMOL = Model(name="135M", layers=30, width=576, heads=9, kv_heads=3, inner=1536, vocab=49_152)
"""The shape of SmolLM2-135M, with a Qwen2 layer's biases."""
QUICK = Model(name="0.8M", layers=4, width=128, heads=4, kv_heads=4, inner=352, vocab=253)
"""The size of the quickstart's model."""
DPO = {
    "0.8M": Training(name="0.8M", kind="dpo", model=QUICK, rows=32, prompt=20, completion=25, tokens=8192),
    "13M": Training(name="13M", kind="dpo", model=SMALL, rows=4, prompt=300, completion=50),
    "135M": Training(name="135M", kind="dpo", model=SMOL, rows=1, prompt=200, completion=80),
}
GRPO = {
    "0.8M": Training(name="0.8M", kind="grpo", model=QUICK, rows=16, prompt=20, completion=48, group=8, tokens=8192),
    "13M": Training(name="13M", kind="grpo", model=SMALL, rows=4, prompt=128, completion=32, group=4),
    "135M": Training(name="135M", kind="grpo", model=SMOL, rows=2, prompt=64, completion=16, group=4),
}
ROWS = (1, 4, 16)
"""Rows that are sampled together, each of a prompt of its own."""
PROMPT, NEW = 64, 8
ROUNDS = 3
SIDE, BYTES = 1024, 256 << 20
"""Side of the square product, and bytes read, by which the machine's rates are taken."""
PARTS = {
    "attention": ("attention", "bmm"), "products": ("mm", "linear", "matmul"),
    "copies": ("copy", "cat", "index", "gather", "select", "embedding", "scatter", "fill", "zero"),
}  # fmt: skip
"""Operators whose names hold one of these words, the first that fits; all others are `other tensors`."""
ELSE, BETWEEN = "other tensors", "between"


@dataclass(frozen=True, slots=True)
class Task:
    """What is done again and again: `times` pieces, each of at least `flops` operations and `moved` bytes."""

    title: str
    run: Callable[[], object]
    flops: float
    moved: float
    times: int = 1
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor seconds of one piece, the two floors, the share of each part of its time; the machine, and its rates in GFLOP/s
    and GB/s at the time."""

    title: str
    seconds: float
    arithmetic: float
    memory: float
    shares: Mapping[str, float]
    machine: str
    date: str
    gflops: float
    gbytes: float

    @property
    def of_floor(self) -> float:
        return max(self.arithmetic, self.memory) / self.seconds


def opened(case: Training, folder: Path, adapter_rank: int, precision: str) -> Trunk:
    """The case's model, with an adapter where `adapter_rank` is not 0."""
    from evenhand.models.adapter_config import Adapter
    from evenhand.models.adapters import attach

    model = ours.opened(case, folder, "cpu", precision)
    if adapter_rank:
        attach(model, Adapter(rank=adapter_rank), seed=0)
    return model


def learning(case: Training, folder: Path, *, adapter_rank: int = 0, precision: str = "float32") -> Task:
    """One optimizer step of the case on rows that are there: for DPO with their reference log-probs, for GRPO sampled before."""
    method, model = ours.method_of(case), opened(case, folder, adapter_rank, precision)
    source = ours.rollouts(case, method, model) if method.online else ours.fixed(case, method, model, {})
    given = Repeated(source, source.step(0))
    loop = loop_of(method.objective, model, given)
    parameters = [p for p in model.parameters() if p.requires_grad]
    held, learns = sum(p.numel() for p in model.parameters()), sum(p.numel() for p in parameters)
    moved = 4.0 * (2 * held * len(given.first.batches) + 8 * learns)
    what = f"adapter of rank {adapter_rank}" if adapter_rank else "all weights"
    title = f"{case.name}, {case.title}, {what}{spoken(precision)}{': the update' if method.online else ''}"
    return Task(title, lambda: loop.one_step(0), operations(model, given.first), moved)


def loop_of(objective: Any, model: Trunk, source: Source) -> Loop:
    from evenhand.train.loop import Loop
    from evenhand.train.optim import AdamW

    optimizer = AdamW(model, learning_rate=1e-6, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    return Loop(model=model, objective=objective, source=source, optimizer=optimizer, factor=lambda _: 1.0, device="cpu")


def operations(model: Trunk, step: Step) -> float:
    """Of all passes of a step, backward included."""
    from evenhand.train import flops
    from evenhand.types import Head

    shape = flops.shape_of(model)
    return float(sum(flops.of_pass(model, shape, b.layout, frozenset({Head.LOGP}), learns=True) for b in step.batches))


class Repeated:
    """A source whose every step is the one it was given."""

    def __init__(self, source: Source, first: Step) -> None:
        self.first, self.groups, self.carried = first, source.groups, source.carried

    def step(self, index: int) -> Step:
        return self.first

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """There is no state."""


def rollout(case: Training, folder: Path, *, adapter_rank: int = 0, precision: str = "float32") -> Task:
    """What comes before the update of an online step: prompts are read, answers drawn, rewarded, credited and packed."""
    from evenhand.train import flops

    method, model = ours.method_of(case), opened(case, folder, adapter_rank, precision)
    source, shape = ours.rollouts(case, method, model), flops.shape_of(model)
    lengths = [n for of_prompt in corpus.lengths(case) for n in of_prompt]
    owner = [i // case.group for i in range(len(lengths))]
    done = flops.forward(shape, flops.work([case.prompt] * case.rows, lengths, owner))
    size = 2.0 if precision == "bfloat16" else 4.0
    moved = size * (shape.weights + shape.head) * (1 + case.completion)
    what = f"adapter of rank {adapter_rank}" if adapter_rank else "all weights"
    return Task(f"{case.name}, {case.title}, {what}{spoken(precision)}: the rollout", lambda: source.step(0), done, moved)


def sampling(rows: int, folder: Path, *, model: Model = SMOL, precision: str = "float32") -> Task:
    """`NEW` steps of a session: the network for one token of each row, and the draw of the next."""
    import torch

    from evenhand.engines.draw import Draw
    from evenhand.models.decode import decoder_for
    from evenhand.models.load import load_policy
    from evenhand.train.flops import shape_of
    from evenhand.types import Sampling

    policy = load_policy(folder / "policy", device="cpu", dtype="float32")
    decoder, within, draws = decoder_for(policy.hf), ExitStack(), torch.Generator().manual_seed(0)
    within.enter_context(decoder.ready(None if precision == "float32" else torch.bfloat16, alone=rows == 1))
    prompts = torch.randint(corpus.SPECIAL, model.vocab, (rows, PROMPT), generator=draws).tolist()
    session, draw = decoder.open(prompts, list(range(rows))), Draw([Sampling(max_tokens=NEW)] * rows, policy.device)
    last = [session.logits]

    def steps() -> None:
        for _ in range(NEW):
            tokens, _ = draw(last[0], torch.rand(rows, generator=draws, dtype=torch.float64))
            last[0] = session.step(tokens)

    shape = shape_of(policy)
    weights, size = shape.weights + shape.head, 4.0 if precision == "float32" else 2.0
    title = f"{model.name}, sampling, {rows} row{'s' * (rows > 1)}{spoken(precision)}: a token of each"
    return Task(title, steps, 2.0 * weights * rows, size * weights, times=NEW, close=within.close)


def spoken(precision: str) -> str:
    return "" if precision == "float32" else ", products in bf16"


Opens = Callable[[Path], Task]
PHASES: Mapping[str, Callable[..., Task]] = {"rollout": rollout, "update": learning}
RANK = 16
WORK: Mapping[str, tuple[Model, Opens]] = {
    **{f"dpo-{n}": (c.model, partial(learning, c)) for n, c in DPO.items()},
    **{f"dpo-{n}-adapter": (c.model, partial(learning, c, adapter_rank=RANK)) for n, c in DPO.items() if c.model is not QUICK},
    **{f"grpo-{n}-{part}": (c.model, partial(work, c)) for n, c in GRPO.items() for part, work in PHASES.items()},
    **{
        f"grpo-{n}-adapter-{part}": (c.model, partial(work, c, adapter_rank=RANK))
        for n, c in GRPO.items()
        for part, work in PHASES.items()
        if c.model is not QUICK
    },
    **{f"rows-{rows}": (SMOL, partial(sampling, rows)) for rows in ROWS},
    **{f"rows-{rows}-bf16": (SMOL, partial(sampling, rows, precision="bfloat16")) for rows in ROWS},
}
"""What is profiled, by the name of its row: the model and how its task is opened."""


def measure(task: Task) -> Spent:
    """Medians, after one run that is not counted; rates of the machine in turn with the work."""
    task.run()
    seconds, products, reads = [], [], []
    for _ in range(ROUNDS):
        products.append(product_rate())
        reads.append(reading_rate())
        seconds.append(processor_time(task.run) / task.times)
    product, read = statistics.median(products), statistics.median(reads)
    return Spent(
        title=task.title,
        seconds=statistics.median(seconds),
        arithmetic=task.flops / product,
        memory=task.moved / read,
        shares=shares(task),
        machine=machine.processor(),
        date=time.strftime("%Y-%m-%d"),
        gflops=product / 1e9,
        gbytes=read / 1e9,
    )


def shares(task: Task) -> dict[str, float]:
    """The share of each kind of operator in one run, as torch's profiler sees them; what is no operator is `between`."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU]) as seen:
        began = time.perf_counter()
        task.run()
        whole = time.perf_counter() - began
    found = dict.fromkeys((*PARTS, ELSE), 0.0)
    for event in seen.key_averages():
        if "::" in event.key:
            found[part_of(event.key)] += 1e-6 * event.self_cpu_time_total / whole
    return {**found, BETWEEN: max(0.0, 1.0 - sum(found.values()))}


def part_of(operator: str) -> str:
    """
    >>> part_of("aten::addmm"), part_of("aten::bmm"), part_of("aten::mul")
    ('products', 'attention', 'other tensors')
    """
    name = operator.rsplit("::", 1)[-1].lower()
    return next((part for part, words in PARTS.items() if any(word in name for word in words)), ELSE)


def product_rate() -> float:
    """FLOP/s of a large product in float32, by the library that the work's own products go to."""
    import torch

    from evenhand.core.matmul import product

    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    product(a, b)
    return 2 * SIDE**3 / min(processor_time(lambda: product(a, b)) for _ in range(3))


def reading_rate() -> float:
    """Bytes per second that one thread reads."""
    import torch

    source = torch.ones(BYTES // 4)
    source.sum()
    return BYTES / min(processor_time(source.sum) for _ in range(3))


def processor_time(run: Callable[[], object]) -> float:
    began = time.process_time()
    run()
    return time.process_time() - began


def table(found: Sequence[Spent]) -> str:
    head = ["work", "processor ms", "arithmetic, ms", "memory, ms", "of the higher floor", *PARTS, ELSE, BETWEEN]
    return page.table(head, [cells(s) for s in found])


def cells(s: Spent) -> list[str]:
    times = [f"{1e3 * t:.0f}" if t >= 0.01 else f"{1e3 * t:.1f}" for t in (s.seconds, s.arithmetic, s.memory)]
    return [s.title, *times, f"{s.of_floor:.0%}", *(f"{s.shares[part]:.0%}" for part in (*PARTS, ELSE, BETWEEN))]


PAGE = """# Where the time goes

A step, its rollout, and a token of each sampled row, beside the least that they can take: operations over the rate of a large
matrix product, and bytes that must be moved over the rate of reading. Written by `python -m benchmarks.profile docs`.

{table}

Times are of the processor, in one thread, so that a busy machine moves them little (it was busy, and its other core read the
same memory); the two rates ({rates}) were taken in turn with each row's work. Shares are of products, attention, copies and
other tensor operations as torch's profiler sees them; `between` is what is no operator, mostly Python, and the profiler makes
it larger than it is. The memory floor of an update reads all weights twice per micro-batch and moves gradient, moments and
weight of what learns, activations left out; that of sampling reads all weights once a token of every row, keys and values left
out. A product in bf16 may pass the floor of arithmetic, whose rate is one of float32. Weights are random; shapes are those of
the quickstart (0.8M), of the model of [benchmarks](benchmarks.md) (13M) and of SmolLM2-135M.

**What stands in the way.** An update of a model of a hundred million weights is two thirds products, at the rate of the
machine; the rest is attention, copies, and norms, rotations and activations, each of several tensor operations, since nothing
here is compiled. At less than a million weights those take as long as the products, and in sampling what lies between them
nearly does. A token of few rows is the reading of the weights, at more than half of the rate at which memory can be read, and a
Python call for each of the dozens of operators of a layer. Products in bf16 halve what is read, not what is called.

{where}
"""


def main(folder: Path, names: Sequence[str]) -> None:
    import torch

    torch.set_num_threads(1)
    record = folder / "profile.json"
    found = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in names or WORK:
            model, opens = WORK[name]
            place = Path(scratch) / model.name.split()[0]
            task = opens(place if place.exists() else corpus.save_models(model, place))
            found[name] = asdict(measure(task))
            task.close()
            print(name, found[name], flush=True)
            record.write_text(json.dumps({n: found[n] for n in WORK if n in found}, indent=1) + "\n", encoding="utf-8")
            (folder / "profile.md").write_text(written(found), encoding="utf-8")


def written(found: Mapping[str, Mapping[str, Any]]) -> str:
    """profile.md of the rows of profile.json, in the order of `WORK`."""
    rows = [Spent(**found[name]) for name in WORK if name in found]
    where = "; ".join(sorted({f"{s.machine}, {s.date}" for s in rows}))
    spread = [f"{min(r):.0f} to {max(r):.0f}" for r in ([s.gflops for s in rows], [s.gbytes for s in rows])]
    return PAGE.format(table=table(rows), rates=f"{spread[0]} GFLOP/s in float32 and {spread[1]} GB/s", where=where)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
