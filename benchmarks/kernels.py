"""What each hand-written kernel gains alone: the same work with it and without it, in turn, in processor time of one thread.

Processor time of one thread hardly moves when the machine is busy, and the two sides alternate, so the ratio is worth more than
either figure. `python -m benchmarks.kernels` writes the table of docs/decisions/kernels.md anew.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import corpus, machine, ours
from benchmarks.shapes import SMALL, SMALLEST, Training

PAGE = Path(__file__).resolve().parents[1] / "docs" / "decisions" / "kernels.md"
BEGIN, END = "<!-- measured:begin -->", "<!-- measured:end -->"
ROUNDS = 7
WORTH = 1.1
"""A kernel that gains less than a tenth on its target goes."""

Without = Callable[[Any], AbstractContextManager[None]]
Work = partial[tuple[Any, Callable[[], object]]]


@dataclass(frozen=True, slots=True)
class Kernel:
    """A file of src/evenhand, its target in words, the work, and how the work is done without it."""

    file: str
    target: str
    work: Work
    without: Without


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def step(case: Training, folder: Path) -> tuple[Any, Callable[[], object]]:
    """(model, one optimizer step of the case)."""
    from evenhand.train.loop import Loop
    from evenhand.train.optim import AdamW

    method, model = ours.method_of(case), ours.opened(case, folder, "cpu", "float32")
    optimizer = AdamW(model, learning_rate=1e-6, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    source = ours.fixed(case, method, model, {})
    loop = Loop(model=model, objective=method.objective, source=source, optimizer=optimizer, factor=lambda _: 1.0, device="cpu")
    return model, lambda: loop.one_step(0)


def sampling(
    rows: int, prompt: int, new: int, group: int, folder: Path, *, at_once: int = 512, ends: int = 0
) -> tuple[Any, Callable[[], object]]:
    """(policy, `rows` answers of up to `new` tokens, `group` to a prompt, `at_once` together; any of `ends` tokens ends one)."""
    from evenhand.engines.local import LocalEngine
    from evenhand.models.load import load_policy
    from evenhand.types import Prompt, Sampling

    policy, vocab = load_policy(folder / "policy", device="cpu"), SMALLEST.vocab
    prompts = [Prompt(content=t) for t in corpus.prompts(vocab, rows // group, prompt)]
    asked, renderer = Sampling(max_tokens=new, seed=0), ours.endless(vocab)
    renderer.stop_ids = frozenset(range(ends))
    # a new engine each time: the decoder is chosen when the first one is opened
    return policy, lambda: LocalEngine(policy, renderer, max_rows=at_once).generate(prompts, group, asked)


def padded_rows(model: Any) -> AbstractContextManager[None]:
    return patched(model, "layout_mode", "padded")


def full_logits(model: Any) -> AbstractContextManager[None]:
    from evenhand.models.head import LogitsHead

    @contextmanager
    def plain() -> Iterator[None]:
        with patched(model, "head_mode", "logits"), patched(model, "_head", LogitsHead()):
            yield

    return plain()


def no_flash(_: Any) -> AbstractContextManager[None]:
    from evenhand.models import tree_attention_flash

    return patched(tree_attention_flash, "branches", lambda layout: None)


def no_blocks(_: Any) -> AbstractContextManager[None]:
    from evenhand.core import logits_kernels

    return patched(logits_kernels, "BLOCK_BYTES", 1 << 40)


def library_products(_: Any) -> AbstractContextManager[None]:
    import torch

    return torch.backends.mkldnn.flags(enabled=False)


def no_packed_weights(_: Any) -> AbstractContextManager[None]:
    from evenhand.core import matmul

    return patched(matmul, "packs", lambda: False)


def a_wave_at_a_time(_: Any) -> AbstractContextManager[None]:
    from evenhand.engines import decode_batch

    return patched(decode_batch, "steps_together", lambda decoder: False)


def library_cache(policy: Any) -> AbstractContextManager[None]:
    from evenhand.models import decode

    return patched(decode, "_CHOSEN", {policy.hf: decode.PlainDecoder})


LONG_PROMPT = Training(name="", kind="dpo", model=SMALL, rows=4, prompt=300, completion=50)
LONG_ANSWER = Training(name="", kind="dpo", model=SMALL, rows=4, prompt=160, completion=250)
LONGER_ANSWER = Training(name="", kind="dpo", model=SMALL, rows=2, prompt=300, completion=1000)
long_prompt, long_answer, many_rows = partial(step, LONG_PROMPT), partial(step, LONG_ANSWER), partial(sampling, 64, 128, 32, 8)
KERNELS = (
    Kernel("models/attention.py", "shared-prefix packing: DPO, 4 pairs, prompt 300, answers of 50", long_prompt, padded_rows),
    Kernel(
        "models/tree_attention_flash.py", "attention in slices: DPO, 4 pairs, prompt 160, answers of 250", long_answer, no_flash
    ),
    Kernel(
        "models/tree_attention_flash.py",
        "the same, 2 pairs, prompt 300, answers of 1,000",
        partial(step, LONGER_ANSWER),
        no_flash,
    ),
    Kernel("core/logprob.py", "log-probs without logits: the same step", long_answer, full_logits),
    Kernel("core/logits_kernels.py", "logits in blocks that fit the cache: the same step", long_answer, no_blocks),
    Kernel("core/matmul.py", "float32 products in oneDNN: the same step", long_answer, library_products),
    Kernel("models/decode_cache.py", "sampling 64 rows, prompt 128, 32 new, 8 to a prompt", many_rows, library_cache),
    Kernel(
        "engines/decode_batch.py",
        "rows that wait begin beside those that run: 256 rows, 64 at once, prompt 32, ends after 40 of at most 256 on average",
        partial(sampling, 256, 32, 256, 8, at_once=64, ends=50),
        a_wave_at_a_time,
    ),
    Kernel("models/decode_products.py", "weights stacked and packed: the same sampling", many_rows, no_packed_weights),
)


def measure(kernel: Kernel, folder: Path) -> tuple[float, float]:
    """Median processor seconds (with, without), the sides in turn after one round that is not counted."""
    model, work = kernel.work(folder)
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(ROUNDS + 1):
        seconds[True].append(_timed(work))
        with kernel.without(model):
            seconds[False].append(_timed(work))
    return statistics.median(seconds[True][1:]), statistics.median(seconds[False][1:])


def _timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def table() -> str:
    """The rows of docs/decisions/kernels.md, measured now."""
    import torch

    torch.set_num_threads(1)
    lines = ["| file | what it is for, and measured on | with, s | without, s | gain |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as scratch:
        folders = {model: corpus.save_models(model, Path(scratch) / model.name[:4]) for model in (SMALL, SMALLEST)}
        for kernel in KERNELS:
            ours_, theirs = measure(kernel, folders[SMALLEST if kernel.work.func is sampling else SMALL])
            gain = theirs / ours_
            mark = "" if gain >= WORTH else " (below a tenth)"
            lines.append(f"| `{kernel.file}` | {kernel.target} | {ours_:.3f} | {theirs:.3f} | {gain:.2f}x{mark} |")
    found = machine.describe("cpu", 1)
    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items() if k in ("torch", "transformers"))
    return "\n".join(
        [*lines, "", f"{found['device']}, one thread, Python {found['python']}, {versions}; {time.strftime('%Y-%m-%d')}."]
    )


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
