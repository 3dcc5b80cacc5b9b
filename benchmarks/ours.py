"""Our side: the package's own loop, sources and engine, put together as its stages do."""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import corpus
from benchmarks.shapes import Training
from benchmarks.worker import Gate

if TYPE_CHECKING:
    from evenhand.data.template import Renderer
    from evenhand.methods import Method
    from evenhand.models.backbone import Trunk
    from evenhand.protocols import Source
    from evenhand.train.examples import Example
    from evenhand.types import Group, Scores


def train(gate: Gate, case: Training, folder: Path, precision: str = "float32") -> None:
    """Optimizer steps of `case` as ordered. `precision` is of matrix products; weights are bfloat16 on an accelerator."""
    from evenhand.train.loop import Loop
    from evenhand.train.optim import AdamW

    method = method_of(case)
    imports()
    gate.loaded()
    model = opened(case, folder, gate.device, precision)
    info: dict[str, Any] = {}
    loop: Loop | None = None
    for index in itertools.count():
        if gate.wait() is None:
            return
        if loop is None:  # in its turn, in the untimed round: reference log-probs are timed, and other sides are at rest
            source = rollouts(case, method, model) if method.online else fixed(case, method, model, info)
            optimizer = AdamW(model, learning_rate=1e-6, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
            loop = Loop(
                model=model, objective=method.objective, source=source, optimizer=optimizer, factor=lambda _: 1.0,
                device=gate.device,
            )  # fmt: skip
        metrics = loop.one_step(index)
        gate.done(**{k: metrics[k] for k in ("loss", "grad_norm", "length") if k in metrics}, **info)


def sample(gate: Gate, vocab: int, folder: Path) -> None:
    """Sampling as ordered: prompts and shape come with the order."""
    from evenhand.engines.local import LocalEngine
    from evenhand.models.load import load_policy
    from evenhand.types import Prompt, Sampling

    imports()
    gate.loaded()
    policy = load_policy(folder / "policy", device=gate.device)
    engine = LocalEngine(policy, endless(vocab))
    for seed in itertools.count():
        if (order := gate.wait()) is None:
            return
        texts = corpus.prompts(vocab, order["rows"] // order["group"], order["prompt"])
        sampling = Sampling(max_tokens=order["new"], temperature=order["temperature"], seed=seed)
        groups = engine.generate([Prompt(content=t) for t in texts], order["group"], sampling)
        rows = [c.tokens for g in groups for c in g.completions]
        gate.done(tokens=sum(map(len, rows)), rows=rows if order["temperature"] == 0 else None)


def log_probs(gate: Gate, rows: int, width: int, vocab: int, fused: bool) -> None:
    """Log-probs of random states and their gradients, as ordered: by the fused op, or by full logits as torch has them."""
    import torch

    from evenhand.core.logprob import completion_logp

    gate.loaded()
    named = {"device": gate.device, "dtype": torch.bfloat16, "requires_grad": True}
    hidden, weight = (torch.randn(n, width, **named) for n in (rows, vocab))
    ids = torch.randint(vocab, (rows,), device=gate.device)
    scale = width**-0.5
    while gate.wait() is not None:
        if fused:
            logp = completion_logp(hidden, weight, ids, scale=scale)
        else:
            logp = -torch.nn.functional.cross_entropy((scale * hidden @ weight.T).float(), ids, reduction="none")
        logp.sum().backward()
        gate.done()
        hidden.grad = weight.grad = None


def imports() -> None:
    """What a step would import late, so that it does not count as its memory."""
    for name in ("transformers.models.qwen2.modeling_qwen2", "evenhand.engines.local", "evenhand.stages.fit"):
        importlib.import_module(name)


def method_of(case: Training) -> Method:
    """The method with TRL's defaults: no KL, no centring, no length penalties."""
    from evenhand import methods

    name, parameters = {
        "sft": ("sft", {}),
        "dpo": ("dpo", {}),
        "reward": ("reward_model", {"centring": 0.0}),
        "grpo": ("grpo", {"completions_per_prompt": case.group, "kl": 0.0}),
    }[case.kind]
    return methods.build(name, parameters, steps=1, max_tokens=case.completion)


def opened(case: Training, folder: Path, device: str, precision: str) -> Trunk:
    """The model of the case; on a processor weights are float32 and `precision` is that of products."""
    import torch

    from evenhand.models.load import load_policy, load_reward_model

    load, name = (load_reward_model, "reward") if case.kind == "reward" else (load_policy, "policy")
    if device != "cpu":
        return load(folder / name, dtype=precision, device=device)
    model = load(folder / name, dtype="float32", device=device)
    if precision != "float32":
        model.set_matmul_dtype(getattr(torch, precision))
    return model


def fixed(case: Training, method: Method, model: Trunk, info: dict[str, Any]) -> Source:
    """The case's rows as a source of steps; for DPO with reference log-probs, whose time goes into `info`."""
    from evenhand.data.template import Renderer
    from evenhand.train.cost_accounting import Ledger
    from evenhand.train.examples import Example, with_pairs
    from evenhand.train.offline import FixedSource

    renderer = Renderer(corpus.tokenizer(case.model.vocab))
    done = renderer.tokenise_all([group(r) for r in corpus.rows(case)], max_prompt=None, max_completion=None)
    items = [Example(tokens=t) for t in done.groups]
    assert [[len(c.ids) for c in i.tokens.completions] for i in items] == corpus.lengths(case)
    if case.kind in ("dpo", "reward"):
        items = [with_pairs(i) for i in items]
    if case.kind == "dpo":
        items = with_reference(items, model, case.tokens, info)
    return FixedSource(
        items=items,
        prompts_per_step=case.rows,
        tokens_per_microbatch=case.tokens,
        seed=0,
        ledger=Ledger(),
    )


def group(row: Mapping[str, str]) -> Group:
    """A row of the corpus as a group."""
    from evenhand.types import Completion, Group, Prompt

    texts = [row[name] for name in ("completion", "chosen", "rejected") if name in row]
    completions = tuple(Completion(content=t) for t in texts)
    return Group(prompt=Prompt(content=row["prompt"]), completions=completions, scores=(1.0, 0.0) if len(texts) == 2 else ())


def with_reference(items: Sequence[Example], model: Trunk, tokens: int, info: dict[str, Any]) -> list[Example]:
    """Items with the start's log-probs, as the reference stage stores them; `reference_seconds` is the second of two passes."""
    import torch

    from evenhand.train.logprobs import read
    from evenhand.types import Head

    for _ in range(2):
        start = time.perf_counter()
        heads = frozenset({Head.LOGP})
        found = read(model, items, heads, tokens_per_microbatch=tokens, temperature=1.0, device=model.device)[Head.LOGP]
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        info["reference_seconds"] = round(time.perf_counter() - start, 5)
    return [replace(i, per_token={"ref_logp": rows}) for i, rows in zip(items, found, strict=True)]


def rollouts(case: Training, method: Method, model: Trunk) -> Source:
    """Rollouts of the case's prompts with a reward that costs nothing; every completion has the full length."""
    from evenhand.engines.local import LocalEngine
    from evenhand.train.cost_accounting import Ledger
    from evenhand.train.rollouts.reader import Reader
    from evenhand.train.rollouts.sampler import Sampler
    from evenhand.train.rollouts.source import RolloutSource
    from evenhand.types import Prompt, Sampling

    renderer = endless(case.model.vocab)
    return RolloutSource(
        method=method,
        prompts=[Prompt(content=r["prompt"]) for r in corpus.rows(case)],
        sampler=Sampler(engine=LocalEngine(model, renderer), sampling=Sampling(max_tokens=case.completion)),
        reward=reward,
        reader=Reader(
            tokenise=lambda g: renderer.tokenise(g, max_prompt=None, max_completion=None), read=lambda heads, items: {}
        ),
        prompts_per_step=case.rows,
        tokens_per_microbatch=case.tokens,
        seed=0,
        ledger=Ledger(),
    )


def endless(vocab: int) -> Renderer:
    """A renderer without stop tokens: every completion runs to its limit, as on TRL's side."""
    from evenhand.data.template import Renderer

    renderer = Renderer(corpus.tokenizer(vocab))
    renderer.stop_ids = frozenset()
    return renderer


def score(ids: Sequence[int]) -> float:
    """A reward that both sides share: no meaning, some spread.

    >>> score([90, 10])
    0.03
    """
    return sum(ids) % 97 / 100


def reward(groups: Sequence[Group]) -> list[Scores]:
    from evenhand.types import Scores

    return [Scores(values=tuple(score(c.tokens or ()) for c in g.completions)) for g in groups]
