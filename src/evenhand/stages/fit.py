"""Training any method: SFT, reward models and every arm are this one stage with another method name."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from evenhand.data.template import Renderer
from evenhand.methods import Method
from evenhand.models.backbone import Trunk
from evenhand.models.gate import GatedRewardModel
from evenhand.models.heads import CriticPolicy, RewardModel, ValuePolicy
from evenhand.models.load import new_policy
from evenhand.models.policy import Policy
from evenhand.models.routers import configured_weight
from evenhand.models.sharding import but_layers
from evenhand.protocols import Source
from evenhand.stages import monitoring, offline, online, resume, reward_models, snapshots, validate
from evenhand.stages.adapter import as_start, with_adapter, write_model
from evenhand.stages.common import REWARD, begin, build_reward, in_precision, open_policy, open_renderer
from evenhand.stages.context import StageContext
from evenhand.stages.on_ranks import reward_on
from evenhand.stages.resume import Saved, Training
from evenhand.stages.teacher import check_vocabulary, open_teacher
from evenhand.stages.training_run import FitSpec, TrainingRun
from evenhand.store import digests
from evenhand.store.pointer import model_path
from evenhand.store.store import remove_halves
from evenhand.store.whole import write_json
from evenhand.train import checkpoint, heap, loop, memory
from evenhand.train.cost_accounting import Ledger
from evenhand.train.examples import micro_batches
from evenhand.train.monitor import Monitor, logged, of_samples
from evenhand.train.moving_reference import FollowingReference
from evenhand.train.optim import schedule
from evenhand.train.optimizers import optimizer_for
from evenhand.train.policies import INITIAL_POLICY, TEACHER

__all__ = ["FitSpec", "from_scratch", "open_run", "run"]

LEDGER = "ledger.json"
APART = ("meta.json", checkpoint.FOLDER)
"""Not compared where a stage was killed while it tidied up: the store's note, and what is to be removed."""
Done = tuple[int, dict[str, float]]
"""Steps done, and the metrics of the last."""
Watch = Callable[[int], dict[str, float]]
_log = logging.getLogger(__name__)


def run(spec: FitSpec, context: StageContext) -> None:
    """Train, keeping a checkpoint for resume; leaves the model, metrics.jsonl, samples.jsonl, warnings.json and ledger.json."""
    out = context.out
    if context.ranks.told(lambda: tidied(out)):
        return
    while (less := attempt(spec, context)) is not None:
        memory.release()
        _log.warning("out of memory: micro-batches of at most %d tokens from here on", less)
        spec = replace(spec, train=replace(spec.train, tokens_per_microbatch=less))


def tidied(out: Path) -> bool:
    """Whether a stage had only to tidy up when it was killed: all the rest is there, and the checkpoints may be halves."""
    if not (out / LEDGER).exists():
        return False
    if not (why := digests.damage(out, but=APART)):  # the digests are written last: without them all is doubted
        checkpoint.remove(out)
        return True
    _log.warning("what training had written before it was stopped is damaged (%s): it is written again", why)
    (out / LEDGER).unlink()
    return False


def attempt(spec: FitSpec, context: StageContext) -> int | None:
    """Train from the newest checkpoint to the end; returns the size of micro-batches to try where memory ran out, if asked."""
    device, out, ranks = begin(spec.setup.compute), context.out, context.ranks
    saved = ranks.told(lambda: Saved.newest(out))
    ledger = saved.ledger.of(ranks)
    context.report(0, 0, phase="opens the model")
    with ledger.phase("load"):
        training = assemble(open_run(spec, context, device, ledger))
    resume.restore(training, saved)
    context.report(0, 0, phase="answers prompts" if training.run.method.online else "takes a step")
    try:
        train(training, context, saved)
    except (RuntimeError, MemoryError) as error:
        if not memory.ran_out(error):
            raise
        longest = max((g.size for g in training.source.groups), default=0)
        where = f"{spec.method}, seed {context.seed}"
        too_large = memory.step_too_large(spec.train, training.run.model, longest, where=where)
        if too_large.smaller is None or ranks.size > 1:  # one rank alone cannot begin again: who started them does
            raise too_large from error
        return too_large.smaller
    complete(training, out)
    return None


def complete(training: Training, out: Path) -> None:
    """Everything that is written when the last step is done."""
    monitoring.write(training.monitor, training.run, out)
    if (keeper := training.keeper) is not None:
        keeper.best.restore(training.run.model)
        write_json(out / validate.FILE, keeper.as_json())
    finish(training.run, out)


def assemble(run: TrainingRun) -> Training:
    """The run with its optimizer, source and loop, and those who look on."""
    train, plan = run.spec.train, run.method.rollouts
    if isinstance(run.model, GatedRewardModel):
        reward_models.debias(run, run.model)
    optimizer = optimizer_for(run.model, train, seed=run.seed)
    source: Source = online.source(run, optimizer) if plan is not None else offline.source(run)
    if (update := run.method.reference_update) is not None:
        assert run.following is not None
        source = FollowingReference(source=source, policy=run.model, reference=run.following, update=update)
    anew = plan is not None and plan.schedule.initialise == INITIAL_POLICY
    length = plan.schedule.updates if plan is not None and anew else run.steps  # a round that starts anew has its own
    of_round = schedule(train.schedule, warmup=round(train.warmup * length), steps=length, **train.schedule_parameters)
    trainer = loop.Loop(
        model=run.model, objective=run.objective, source=source, optimizer=optimizer, clip=train.clip,
        factor=lambda step: of_round(step % length), temperature=run.temperature, device=run.device, memory=run.memory,
        ranks=run.ranks,
    )  # fmt: skip
    monitor = Monitor(stop_when=run.spec.train.stop_when, silent=monitoring.silent(run.method))
    return Training(run=run, source=source, loop=trainer, keeper=validate.keeper(run), monitor=monitor)


def train(training: Training, context: StageContext, saved: Saved) -> None:
    """The steps that are left, each logged; ends early where a limit of the user's is passed."""
    run, keeper = training.run, training.keeper
    due = resume.Due(every=run.spec.train.checkpoint_every, alone=run.ranks.size == 1)
    log = checkpoint.Log(context.out / "metrics.jsonl", resume_step=saved.kept)
    watch = watcher(run, checkpoint.Log(context.out / "samples.jsonl", resume_step=saved.kept))
    if saved.step == 0:
        training.monitor.history.add(watch(0))
        if keeper is not None:
            keeper.best.start = measured(run, keeper)
    steps, kept = training.loop.run(saved.step, run.steps), snapshots.steps_of(run.spec.train, run.method, run.steps)
    while (done := next_step(training, steps, context.out)) is not None:
        step, metrics = done
        metrics = metrics | watch(step)
        stop = monitoring.see(training.monitor, step, metrics)
        if keeper is not None and (stop or keeper.due(step, run.steps)):
            keeper.best.offer(step, value := measured(run, keeper), run.model)
            metrics["validation"] = value
        if step in kept:
            snapshots.keep(run, context.out, step)
        log.append(logged(metrics))
        context.report(step, run.steps, **{k: metrics[k] for k in ("loss", "reward", "accuracy") if k in metrics})
        if stop:
            return
        if step < run.steps and due(step):
            with due.written():
                resume.save(training, context.out, step)
        if step % heap.EVERY == 0:
            heap.give_back()


def next_step(
    training: Training, steps: Iterator[tuple[int, dict[str, float]]], out: Path
) -> tuple[int, dict[str, float]] | None:
    """One optimizer step; None after the last. A step that is not finite is explained to the user."""
    with training.run.ledger.phase("step"), monitoring.explained(training.run, training.source, out):
        return next(steps, None)


def measured(run: TrainingRun, keeper: validate.Keeper) -> float:
    with run.ledger.phase("validate"):
        return keeper.measure()


def finish(run: TrainingRun, out: Path) -> None:
    """Write the model and what it cost; the digests of all are the last file, see `tidied`."""
    with run.ledger.phase("save"):
        if run.ranks.saves:
            write(run, out)
    spent = run.ledger.together(run.ranks)
    if run.ranks.first:
        write_json(out / LEDGER, spent.closed())
        remove_halves(out)
        digests.seal(out, but=APART)
        checkpoint.remove(out)


def write(run: TrainingRun, out: Path) -> None:
    """The model, and what stands beside it."""
    folder = write_model(run.model, run.renderer, run.inputs.get("start"), out)
    if (how := run.method.implied_reward) is not None:
        if isinstance(run.model, RewardModel):
            reward_models.normalise(run, run.model, how, folder)
        write_json(out / REWARD, how)


def open_run(spec: FitSpec, context: StageContext, device: str, ledger: Ledger) -> TrainingRun:
    """Open the start, give it the head its method trains, and settle the number of steps."""
    inputs, setup = context.inputs, spec.setup
    held = validate.held_out(spec, inputs, spec.build())
    steps = settled_steps(spec, inputs, held)
    method = spec.build(steps=steps)
    if spec.world is not None:
        model: Trunk
        model, renderer = from_scratch(spec, context.seed, device)
        in_precision(model, setup.compute)
    else:
        renderer = open_renderer(inputs["start"], setup.template)
        with context.ranks.opening():
            model = opened(inputs["start"], method, spec, context.seed, device)
        if method.compares_exactly:
            model = beside(model, inputs, method, spec, renderer, device)
        model = with_adapter(model, spec.train.adapter, context.seed)
    if spec.train.gradient_checkpointing:
        model.set_checkpointing()
    ledger.counts(model)
    reward = build_reward(spec.reward, inputs, setup, device, ledger) if spec.reward is not None else None
    ranks = context.ranks
    made = TrainingRun(
        spec=spec, seed=context.seed, inputs=inputs, device=device, renderer=renderer, method=method, model=ranks.placed(model),
        steps=steps, ledger=ledger, reward=reward_on(ranks, reward), held=held, router_loss=router_loss(model, spec), ranks=ranks,
    )  # fmt: skip
    return replace(made, following=follower(made, ledger)) if method.reference_update is not None else made


def follower(run: TrainingRun, ledger: Ledger) -> Policy:
    """The reference that is to follow the policy: what the policy is compared with, or the start once more."""
    if run.compared_to is None:
        return online.twin(run, ledger)
    return run.compared_to.requires_grad_()  # no gradient reaches it, but a checkpoint keeps what may learn


def opened(start: Path, method: Method, spec: FitSpec, seed: int, device: str) -> Trunk:
    """The start with the head the method trains: none, a score, a value, or a value network beside it."""
    compute = spec.setup.compute
    if method.network == "reward":
        return in_precision(reward_models.opened(model_path(start), method, compute, seed, device), compute)
    policy = open_policy(start, compute, device)
    if method.network == "value":
        policy = in_precision(ValuePolicy(policy.hf), compute)
    elif method.network == "critic":
        policy = in_precision(CriticPolicy(policy.hf, open_policy(start, compute, device).hf), compute)
    return policy


def router_loss(model: Trunk, spec: FitSpec) -> float:
    """The weight of the load-balancing loss: as asked, or as the model's config says; 0 where a network has no part in it."""
    asked = spec.train.router_loss
    weight = (configured_weight(model.hf.config) if asked is None else asked) or 0.0
    if not weight or not isinstance(model, Policy):
        return 0.0
    with but_layers(model):
        model.with_routers()
    _log.info("the loss that balances the routers is added, with weight %g", weight)
    return weight


def beside(model: Trunk, inputs: Mapping[str, Path], method: Method, spec: FitSpec, renderer: Renderer, device: str) -> Policy:
    """The policy with what it is compared with, token by token: a teacher, or its start."""
    assert isinstance(model, Policy)
    if method.reference != TEACHER:
        start = open_policy(inputs["start"], spec.setup.compute, device)
        return model.compared_to(as_start(start, spec.train.adapter), method.measure)
    frozen = open_teacher(inputs, renderer, spec.setup.compute, device)
    check_vocabulary(frozen, model)
    return model.compared_to(frozen, method.measure)


def from_scratch(spec: FitSpec, seed: int, device: str) -> tuple[Policy, Renderer]:
    """A built-in world's own small model, new, with what the spec changes of it, and its tokenizer."""
    from evenhand import worlds

    chosen = worlds.get(str(spec.world), **spec.world_options)
    tokenizer = chosen.tokenizer()
    return new_policy({**chosen.model_config(), **spec.shape}, tokenizer, seed=seed, device=device), Renderer(tokenizer)


def settled_steps(spec: FitSpec, inputs: Mapping[str, Path], held: frozenset[str]) -> int:
    """Optimizer steps: as given, or enough for the epochs over the split."""
    if spec.train.steps is not None:
        return spec.train.steps
    assert spec.train.epochs is not None
    method = spec.build()
    rows = offline.learned_from(spec, inputs, method, without=held)
    passed = len(online.once(rows) if method.online else rows)
    return math.ceil(spec.train.epochs * passed / spec.train.prompts_per_step)


def watcher(run: TrainingRun, samples: checkpoint.Log) -> Watch:
    """What is looked at during training: held-out loss every `evaluate_every` steps, sampled answers every `sample_every`."""
    train = run.spec.train
    with run.ledger.passes("watch"):
        heldout = offline.heldout_items(run) if train.evaluate_every and not run.method.online else []
    reward = run.reward if run.method.rewarded else None

    def watch(step: int) -> dict[str, float]:
        last, seen = step == run.steps, {}
        if train.sample_every and (step % train.sample_every == 0 or last) and not isinstance(run.model, RewardModel):
            with run.ledger.phase("watch"):
                rows = online.watched_samples(run, reward)
                for row in rows:
                    samples.append({"step": step, **row})
            seen = of_samples([row["completion"] for row in rows])
        if heldout and step and (step % train.evaluate_every == 0 or last):
            with run.ledger.phase("watch"):
                batches = [b.to(run.device) for b in micro_batches(heldout, train.tokens_per_microbatch, run.ranks.size)]
                found = loop.evaluate(run.model, run.objective, batches, run.temperature, run.memory, run.ranks)
            seen |= {f"heldout/{k}": v for k, v in logged(found).items()}
        return seen

    return watch
