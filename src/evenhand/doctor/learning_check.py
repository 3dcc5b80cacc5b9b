"""Checks that train for a few steps in a folder that is thrown away: a reward that must rise, a stop that must leave no trace."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evenhand import worlds
from evenhand.data.jsonl import read_groups, write_groups
from evenhand.doctor.context import CheckContext, spaced
from evenhand.doctor.opened import Unavailable
from evenhand.doctor.registry import Finding, check, fail, info, warn
from evenhand.engines.registry import open_engine
from evenhand.models.load import new_policy, resolve_device, save
from evenhand.models.policy import Policy
from evenhand.spec.arms import Arm
from evenhand.stages import fit, reference, tokens
from evenhand.stages.common import open_policy, open_renderer
from evenhand.stages.context import StageContext, StageSpec
from evenhand.stages.data import bare
from evenhand.stages.training_run import FitSpec
from evenhand.stats.tests import permutation_test
from evenhand.train.config import Lengths
from evenhand.types import Group, Sampling

STEPS, PROMPTS, ANSWERS = 12, 8, 8
"""A trial of learning: optimizer steps, prompts a step, and fresh answers per prompt before and after."""
RATE = 0.03
"""Learning rate of a trial: far above what is used, so that a dozen steps of a small new model show."""
RESUMED_AT = 2
"""The step in which a rehearsed run is stopped, of one more."""
BYTES = ("model/*.safetensors", "adapter/*.safetensors", "metrics.jsonl")
"""What a stop must leave as it would have been."""


@check(
    "G6",
    "a reward that is easy to raise rises",
    why="a wrong sign or mask, credit that cancels itself, or too strong a penalty leave a curve that looks like slow learning",
    fix="look at the arm's penalty (`kl`, `beta`), its clip and its credit; if they are usual, report it with `evenhand env`",
    quick=False,
)
def toy_reward(patient: CheckContext) -> Iterator[Finding]:
    arms = one_per_method(patient)
    if not arms:
        raise Unavailable("nothing is sampled in training")
    for name, arm in arms.items():
        settings: dict[str, Any] = {
            "steps": STEPS,
            "prompts_per_step": PROMPTS,
            "learning_rate": RATE,
            "schedule": "constant",
            "schedule_parameters": {},
            "warmup": 0.0,
        }
        with rehearsed(patient, arm, elsewhere, **settings, checkpoint_every=0) as stage:
            before = np.array(toy_scores(stage, stage.inputs["start"], ANSWERS))
            after = np.array(toy_scores(stage, stage.run("trial"), ANSWERS))
        rose = after.mean() > before.mean() and permutation_test(after - before) < 0.05
        seen = (
            f"{name} ({arm.method}): the share of even token ids, as a reward, went from {before.mean():.2f} to "
            f"{after.mean():.2f} in {STEPS} steps of {PROMPTS} prompts"
        )
        yield info(seen) if rose else fail(f"{seen}, which is no rise")


@check(
    "B6",
    "a stopped run goes on as if nothing had happened",
    why="a resume that repeats or skips rows, or loses the optimizer's state, trains another model than the one that is reported",
    fix="report it, with the output of `evenhand env`; until then do not resume: delete the unfinished stage's folder",
    quick=False,
)
def resume(patient: CheckContext) -> Iterator[Finding]:
    arms = one_of_each_kind(patient)
    if not arms:
        raise Unavailable("nothing is trained")
    for name, arm in arms.items():
        steps = RESUMED_AT + 1
        with rehearsed(patient, arm, at_home, steps=steps, prompts_per_step=2, checkpoint_every=1) as stage:
            straight = stage.run("straight")
            stage.run("stopped", kill_at=RESUMED_AT)
            resumed = stage.run("stopped")
            different = [p for p in contents(straight) if contents(straight)[p] != contents(resumed).get(p)]
        said = f"{name}: {steps} steps, stopped in step {RESUMED_AT} and resumed"
        if not different:
            yield info(f"{said}: the same bytes as without a stop")
        elif patient.policy.device.type == "cpu":
            yield fail(f"{said}: not the same as without a stop", *different)
        else:
            yield warn(
                f"{said}: not the same bytes as without a stop", *different,
                why="accelerators add in an order of their own; on a processor the bytes are the same",
                fix="nothing is to be done if the curves agree",
            )  # fmt: skip


def one_per_method(patient: CheckContext) -> dict[str, Arm]:
    """The first arm of every method that samples."""
    found: dict[str, tuple[str, Arm]] = {}
    for name, arm in patient.online.items():
        found.setdefault(arm.method, (name, arm))
    return dict(found.values())


def one_of_each_kind(patient: CheckContext) -> dict[str, Arm]:
    """The first arm that learns from fixed data, and the first that samples."""
    arms = {n: a for n, a in patient.arms.items() if patient.split_of(a) in patient.splits or n in patient.online}
    arms = {n: a for n, a in arms.items() if n.startswith("arms.")} or arms
    fixed = [(n, a) for n, a in arms.items() if n not in patient.online]
    return dict([*fixed[:1], *list(patient.online.items())[:1]])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for pattern in BYTES for p in sorted(folder.glob(pattern))}


LARGEST = 100e6
"""Parameters up to which the model itself is rehearsed with; a rehearsal writes it several times."""
ROWS = 16
"""Rows of every split that a rehearsal takes."""
LENGTHS = Lengths(prompt=64, completion=16)
"""Tokens at most."""
SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
WORLD = "quickstart"
TOY = {"kind": "function", "path": "evenhand.doctor.learning_check:even_tokens"}
"""A reward that a new model of a small vocabulary can raise at once: see `even_tokens`."""


class Killed(BaseException):
    """Ends a rehearsal in the middle of a step; not an Exception, so that nothing in between can take it for a fault."""


def even_tokens(prompt: Any, completion: Any) -> float:
    """The share of sampled token ids that are even: half at the start for any vocabulary, and up to all.

    >>> from evenhand.types import Completion
    >>> even_tokens(None, Completion(content="", tokens=(4, 7, 8, 2)))
    0.75
    """
    ids = completion.tokens or ()
    return sum(i % 2 == 0 for i in ids) / max(len(ids), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmokeRun:
    """A training stage that is ready to run: `run` may be called again on the same folder, which resumes."""

    spec: FitSpec
    inputs: Mapping[str, Path]
    folder: Path

    def run(self, name: str, *, kill_at: int | None = None) -> Path:
        """The stage in the folder `name`; with `kill_at`, it ends abruptly when that step was logged but not yet saved."""

        def report(done: int, of: int, **figures: Any) -> None:
            if done == kill_at:
                raise Killed

        out = self.folder / name
        out.mkdir(exist_ok=True)
        with suppress(Killed), unsaid():
            fit.run(self.spec, StageContext(seed=0, inputs=self.inputs, out=out, report=report))
        return out


@contextmanager
def unsaid() -> Iterator[None]:
    """What training remarks of itself is no finding about a few steps on short rows."""
    logger = logging.getLogger("evenhand.stages.monitoring")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


@contextmanager
def rehearsed(
    patient: CheckContext, arm: Arm, place: Callable[[CheckContext, Path], dict[str, Path]], **train: Any
) -> Iterator[SmokeRun]:
    """An arm's stage with its own method and settings, on the model and rows that `place` writes, as a stage takes them.

    Arms that sample get the toy reward; every other setting is the arm's but for `train`, and for lengths, which are short.
    """
    fits = ((n, n.spec) for n in patient.run.plan.nodes if isinstance(n.spec, FitSpec) and n.row == arm.name)
    node, planned = next(fits)
    spec = rehearsal(planned, train, own_layers=place is at_home and small(patient))
    with tempfile.TemporaryDirectory(prefix="evenhand-doctor-") as scratch:
        folder = Path(scratch)
        inputs = place(patient, folder)
        if "teacher" in node.inputs:
            inputs["teacher"] = inputs["start"]
        for role in [r for r in ("tokens", "heldout_tokens", "reference") if r in node.inputs]:
            inputs[role] = prepared(patient.run.plan[node.inputs[role]].spec, spec, inputs, folder / role)
        yield SmokeRun(spec=spec, inputs=inputs, folder=folder)


def rehearsal(spec: FitSpec, train: Mapping[str, Any], *, own_layers: bool) -> FitSpec:
    """The stage for a few short rows. An adapter's names are those of its own network: elsewhere it takes all layers."""
    shared = spec.setup.lengths
    lengths = Lengths(prompt=min(shared.prompt, LENGTHS.prompt), completion=min(shared.completion, LENGTHS.completion))
    adapter = spec.train.adapter
    if adapter is not None and not own_layers:
        adapter = replace(adapter, targets="all_linear", modules_to_save=())
    quiet = {"evaluate_every": 0, "sample_every": 0, "keep_checkpoint": "last", "stop_when": {}, "adapter": adapter}
    settings = replace(spec.train, **{"epochs": None, "tokens_per_microbatch": 2048, **quiet, **train})
    reward = TOY if spec.reward is not None else None
    return replace(spec, setup=replace(spec.setup, lengths=lengths), train=settings, reward=reward)


def small(patient: CheckContext) -> bool:
    """Whether the model itself is rehearsed with."""
    return sum(p.numel() for p in patient.policy.parameters()) <= LARGEST


def at_home(patient: CheckContext, folder: Path) -> dict[str, Path]:
    """The experiment's model, where it is small, and some of its own rows."""
    policy, tokenizer = patient.policy, patient.renderer.tokenizer
    if not small(patient):
        policy = new_policy({"model_type": "llama", **SMALL}, tokenizer, seed=0, device=str(policy.device))
    return {"start": written_model(policy, tokenizer, folder), "data": written_rows(patient.splits, folder)}


def elsewhere(patient: CheckContext, folder: Path) -> dict[str, Path]:
    """A small new model in a built-in world, with that world's rows."""
    world = worlds.get(WORLD)
    tokenizer = world.tokenizer()
    policy = new_policy({"model_type": "llama", **SMALL}, tokenizer, seed=0, device=patient.experiment.runtime.device)
    rows = {
        "prompts": bare(world.prompts(0, ROWS)), "heldout_prompts": bare(world.prompts(0, ROWS, split="heldout")),
        "preferences": world.preferences(0, ROWS), "demonstrations": world.demonstrations(0, ROWS),
    }  # fmt: skip
    return {"start": written_model(policy, tokenizer, folder), "data": written_rows(rows, folder)}


def written_model(policy: Policy, tokenizer: Any, folder: Path) -> Path:
    save(policy, tokenizer, folder / "start" / "model")
    return folder / "start"


def written_rows(splits: Mapping[str, list[Group]], folder: Path) -> Path:
    """Some rows of every split, short ones where there are enough."""
    (folder / "data").mkdir()
    for split, groups in splits.items():
        short = [g for g in groups if all(len(c.text) <= LENGTHS.completion for c in g.completions)]
        write_groups(folder / "data" / f"{split}.jsonl", spaced(short if len(short) >= ROWS else groups, ROWS))
    return folder / "data"


def prepared(planned: StageSpec, fit: FitSpec, inputs: Mapping[str, Path], out: Path) -> Path:
    """The few rows as tokens, or their reference log-probs."""
    out.mkdir()
    context = StageContext(seed=0, inputs={**inputs, "base": inputs["start"]}, out=out)
    if isinstance(planned, reference.ReferenceSpec):
        setup = replace(planned.setup, lengths=fit.setup.lengths, tokens_per_microbatch=2048)
        reference.run(replace(planned, setup=setup), context)
    elif isinstance(planned, tokens.TokensSpec):
        tokens.run(replace(planned, lengths=fit.setup.lengths), context)
    return out


def toy_scores(stage: SmokeRun, artifact: Path, answers: int) -> list[float]:
    """The mean toy reward per prompt of `answers` fresh answers of the model in `artifact` to each of the few prompts."""
    setup = stage.spec.setup
    policy = open_policy(artifact, setup.compute, resolve_device(setup.compute.device))
    prompts = [g.prompt for g in read_groups(stage.inputs["data"] / "prompts.jsonl")]
    engine = open_engine(setup.compute.sampler, policy, open_renderer(artifact, setup.template))
    sampling = Sampling(temperature=1.0, max_tokens=setup.lengths.completion, seed=1)
    found = engine.generate(prompts, answers, sampling, max_prompt=setup.lengths.prompt)
    return [sum(even_tokens(g.prompt, c) for c in g.completions) / answers for g in found]
