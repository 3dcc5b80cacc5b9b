"""Training any method: SFT, reward models and every arm are this one stage with another method name."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from evenhand import methods
from evenhand.data.template import Renderer
from evenhand.methods import Method
from evenhand.models import adapters
from evenhand.models.backbone import Trunk
from evenhand.models.heads import CriticPolicy, RewardModel, ValuePolicy
from evenhand.models.load import load_policy, new_policy, reward_model_from, save
from evenhand.models.policy import Policy
from evenhand.protocols import Reward
from evenhand.stages import monitoring, offline, online, validate
from evenhand.stages.adapter import with_adapter, write_adapter
from evenhand.stages.common import (
    REWARD,
    in_precision,
    model_path,
    open_policy,
    open_renderer,
    setup,
    to_items,
    write_json,
)
from evenhand.train import checkpoint, loop
from evenhand.train.cost_accounting import Ledger
from evenhand.train.examples import micro_batches
from evenhand.train.monitor import Monitor, logged, of_samples
from evenhand.train.optim import AdamW, schedule
from evenhand.train.rollouts import RolloutSource

LEDGER = "ledger.json"
NORMALISED = 500
"""Groups a reward model's scale is taken from."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Everything a run of this stage is made of, before the first step."""

    spec: Mapping[str, Any]
    seed: int
    inputs: Mapping[str, Path]
    device: str
    renderer: Renderer
    method: Method
    model: Trunk
    steps: int
    ledger: Ledger
    held: frozenset[str] = frozenset()
    """Ids of the prompts that validate: no training row has one of them."""

    @property
    def temperature(self) -> float:
        """What logits are divided by in every log-prob of this run."""
        return self.method.logit_temperature(self.spec["sampling"]["temperature"])


def run(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], out: Path, report: Callable[..., None]) -> None:
    """Train, keeping a checkpoint for resume; leaves `model/`, metrics.jsonl, samples.jsonl, warnings.json and ledger.json."""
    if (out / LEDGER).exists():  # killed while it tidied up: all the rest is there, the checkpoints may be halves
        checkpoint.remove(out)
        return
    device = setup(spec)
    last = checkpoint.latest(out)
    saved = json.loads((last / "state.json").read_text()) if last else {"step": 0}
    ledger = Ledger.from_dict(saved["ledger"]) if last else Ledger()
    with ledger.phase("load"):
        cell = open_cell(spec, seed, inputs, device, ledger)
        source = online.source(cell) if cell.method.online else offline.source(cell)
        keeper = validate.keeper(cell, getattr(source, "reward", None))
    trainer = _loop(cell, source)
    if isinstance(source, RolloutSource):
        online.between_rounds(cell, source, trainer.optimizer)
    if last:
        _resume(last, saved, cell, source, trainer, keeper)
    kept = saved["step"] if last else -1  # killed before the first checkpoint: everything is written again
    log = checkpoint.Log(out / "metrics.jsonl", resume_step=kept)
    watch = _watch(cell, getattr(source, "reward", None), checkpoint.Log(out / "samples.jsonl", resume_step=kept))
    watching = monitoring.monitor(cell, saved)
    if saved["step"] == 0:
        watching.history.add(watch(0))
        if keeper is not None:
            keeper.best.start = _measured(cell, keeper)
    steps = trainer.run(saved["step"], cell.steps)
    while True:
        with ledger.phase("step"), monitoring.explained(cell, lambda: source.items, out):
            done = next(steps, None)
        if done is None:
            break
        step, metrics = done
        metrics = metrics | watch(step)
        stop = monitoring.see(watching, step, metrics)
        if keeper is not None and (stop or keeper.due(step, cell.steps)):
            keeper.best.offer(step, value := _measured(cell, keeper), cell.model)
            metrics["validation"] = value
        log.append(logged(metrics))
        report(step, cell.steps, **{k: metrics[k] for k in ("loss", "reward", "accuracy") if k in metrics})
        if stop:
            break
        if (every := spec["train"]["checkpoint_every"]) and step % every == 0 and step < cell.steps:
            _save(out, step, cell, source, trainer, keeper, watching)
    monitoring.write(watching, cell, out)
    if keeper is not None:
        keeper.best.restore(cell.model)
        write_json(out / validate.FILE, keeper.as_json())
    _finish(cell, out)


def _measured(cell: Cell, keeper: validate.Keeper) -> float:
    with cell.ledger.phase("validate"):
        return keeper.measure()


def _save(
    out: Path, step: int, cell: Cell, source: Any, trainer: loop.Loop, keeper: validate.Keeper | None, watching: Monitor
) -> None:
    """Everything a resumed run needs, as of `step`."""
    state = {"source": source.state_dict(), "ledger": cell.ledger.as_dict(), "monitor": watching.state_dict()}
    state |= {"kept": keeper.best.as_json()} if keeper is not None else {}
    more = _more(source, keeper)
    checkpoint.save(out, step=step, model=cell.model, optimizer=trainer.optimizer, state=state, more=more)


def _more(source: Any, keeper: validate.Keeper | None) -> dict[str, dict[str, torch.Tensor]]:
    """What a checkpoint holds beside policy and optimizer: the best weights so far, and networks that the source carries."""
    carried = {n: checkpoint.trained(m) for n, m in getattr(source, "carried", {}).items()}
    return carried | ({"best": keeper.best.weights} if keeper is not None and keeper.best.weights else {})


def _resume(
    last: Path, saved: Mapping[str, Any], cell: Cell, source: Any, trainer: loop.Loop, keeper: validate.Keeper | None
) -> None:
    """Put everything where the checkpoint left it."""
    checkpoint.load(last, model=cell.model, optimizer=trainer.optimizer)
    source.load_state_dict(saved["source"])
    for name, module in getattr(source, "carried", {}).items():
        known = checkpoint.tensors(last, name)
        for key, tensor in checkpoint.trained(module).items():
            tensor.copy_(known[key])
    if keeper is not None:
        keeper.best.load(saved["kept"], checkpoint.tensors(last, "best"))


def _finish(cell: Cell, out: Path) -> None:
    with cell.ledger.phase("save"):
        save(cell.model, cell.renderer.tokenizer, out / "model", stop_ids=cell.renderer.stop_ids)
        if cell.model.adapter is not None:
            write_adapter(cell.model, model_path(cell.inputs["start"]), out)
        if isinstance(cell.model, RewardModel):
            normalise(cell, out / "model")
        if cell.method.implied_reward is not None:
            write_json(out / REWARD, cell.method.implied_reward)
    learning, parameters = adapters.counted(cell.model)  # a weight that is frozen has no gradient of its own to compute
    training = 4.0 * parameters + 2.0 * learning
    cell.ledger.flops = training * cell.ledger.tokens_trained + 2.0 * parameters * cell.ledger.tokens_generated
    spent = cell.ledger.as_dict()
    inside = sum(v for k, v in spent["seconds"].items() if k in ("generate", "score"))
    spent["seconds"]["train"] = round(spent["seconds"].pop("step", 0.0) - inside, 3)
    write_json(out / LEDGER, spent)  # the last file of all: see `run`
    checkpoint.remove(out)


def normalise(cell: Cell, folder: Path) -> None:
    """Store the shift and scale that give this reward model mean 0 and deviation 1 over answers it was trained on."""
    from evenhand.rewards.model import ModelReward, Normalisation

    lengths = cell.spec["lengths"]
    reward = ModelReward(
        cell.model, cell.renderer, max_prompt=lengths["prompt"], max_completion=lengths["completion"],
        tokens_per_microbatch=cell.spec["train"]["tokens_per_microbatch"],
    )  # fmt: skip
    groups = offline.split_groups(cell.spec, cell.inputs, cell.method)[:NORMALISED]
    Normalisation.fit([v for s in reward(groups) for v in s.values]).save(folder)


def open_cell(spec: Mapping[str, Any], seed: int, inputs: Mapping[str, Path], device: str, ledger: Ledger) -> Cell:
    """Open the start, give it the head its method trains, and settle the number of steps."""
    max_tokens = spec["lengths"]["completion"]
    method = methods.build(spec["method"], spec["parameters"], steps=1, max_tokens=max_tokens)
    held = validate.held_out(spec, inputs, method)
    steps = settled_steps(spec, inputs, method, held)
    method = methods.build(spec["method"], spec["parameters"], steps=steps, max_tokens=max_tokens)
    if "world" in spec:
        model, renderer = from_scratch(spec["world"], seed, device)
        in_precision(model, spec)
    else:
        renderer = open_renderer(inputs["start"], spec["template"])
        model = with_adapter(opened(inputs["start"], method, spec, seed, device), spec, seed)
    if spec["train"]["gradient_checkpointing"]:
        model.set_checkpointing()
    return Cell(
        spec=spec,
        seed=seed,
        inputs=inputs,
        device=device,
        renderer=renderer,
        method=method,
        model=model,
        steps=steps,
        ledger=ledger,
        held=held,
    )


def opened(start: Path, method: Method, spec: Mapping[str, Any], seed: int, device: str) -> Trunk:
    """The start with the head the method trains: none, a score, a value, or a value network beside it."""
    if method.network == "reward":
        return in_precision(reward_model_from(model_path(start), seed=seed, dtype=spec["dtype"], device=device), spec)
    policy = open_policy(start, spec, device)
    if method.network == "value":
        policy = in_precision(ValuePolicy(policy.hf), spec)
    elif method.network == "critic":
        policy = in_precision(CriticPolicy(policy.hf, open_policy(start, spec, device).hf), spec)
    return policy.compared_to(open_policy(start, spec, device)) if method.compares_exactly else policy


def from_scratch(world: str, seed: int, device: str) -> tuple[Policy, Renderer]:
    """A built-in world's own small model, new, and its tokenizer."""
    from evenhand import worlds

    chosen = worlds.get(world)
    tokenizer = chosen.tokenizer()
    return new_policy(chosen.model_config(), tokenizer, seed=seed, device=device), Renderer(tokenizer)


def settled_steps(spec: Mapping[str, Any], inputs: Mapping[str, Path], method: Method, held: frozenset[str]) -> int:
    """Optimizer steps: as given, or enough for the epochs over the split."""
    train = spec["train"]
    if train["steps"] is not None:
        return int(train["steps"])
    rows = offline.split_size(spec, inputs, method, held)
    return math.ceil(train["epochs"] * rows / train["prompts_per_step"])


def _loop(cell: Cell, source: Any) -> loop.Loop:
    train = cell.spec["train"]
    optimizer = AdamW(
        cell.model,
        learning_rate=train["learning_rate"],
        betas=tuple(train["betas"]),
        eps=train["eps"],
        weight_decay=train["weight_decay"],
    )
    plan = cell.method.rollouts
    length = plan.updates if plan is not None and plan.restart != "none" else cell.steps  # a round that starts anew has its own
    of_round = schedule(train["schedule"], warmup=round(train["warmup"] * length), steps=length, **train["schedule_parameters"])

    def factor(step: int) -> float:
        return of_round(step % length)

    return loop.Loop(
        model=cell.model, objective=cell.method.objective, source=source, optimizer=optimizer, factor=factor, clip=train["clip"],
        temperature=cell.temperature, device=cell.device,
    )  # fmt: skip


def _watch(cell: Cell, reward: Reward | None, samples: checkpoint.Log) -> Callable[[int], dict[str, float]]:
    """What is looked at during training: held-out loss every `evaluate_every` steps, sampled answers every `sample_every`."""
    train = cell.spec["train"]
    heldout = offline.heldout_items(cell) if train["evaluate_every"] and not cell.method.online else []

    def watch(step: int) -> dict[str, float]:
        last, seen = step == cell.steps, {}
        if train["sample_every"] and (step % train["sample_every"] == 0 or last) and not isinstance(cell.model, RewardModel):
            with cell.ledger.phase("watch"):
                rows = online.watched_samples(cell, reward)
                for row in rows:
                    samples.append({"step": step, **row})
            seen = of_samples([row["completion"] for row in rows])
        if heldout and step and (step % train["evaluate_every"] == 0 or last):
            with cell.ledger.phase("watch"):
                batches = [b.to(cell.device) for b in micro_batches(heldout, train["tokens_per_microbatch"])]
                found = loop.evaluate(cell.model, cell.method.objective, batches, cell.temperature)
            seen |= {f"heldout/{k}": v for k, v in logged(found).items()}
        return seen

    return watch


__all__ = ["Cell", "from_scratch", "load_policy", "open_cell", "run", "to_items"]
