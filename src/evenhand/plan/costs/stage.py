"""What one stage of a plan will hold and take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from typing import TYPE_CHECKING, Any

from evenhand.engines.local import MAX_ROWS
from evenhand.methods import PROMPTS
from evenhand.models.adapter_config import Adapter
from evenhand.models.gate import GateSettings
from evenhand.plan.costs import seconds
from evenhand.plan.costs.forecast import StageCost
from evenhand.plan.costs.machine import Machine
from evenhand.plan.costs.memory import MemoryLoad, SamplingWave, held, written
from evenhand.plan.costs.network import Network, Precision, network
from evenhand.plan.costs.rows import RowLengths, looked_at, rows_of
from evenhand.plan.costs.seconds import Speed
from evenhand.plan.graph import HELDOUT, Node
from evenhand.stages.evaluate_reward_model import EvaluateRewardModelSpec
from evenhand.stages.fit import FitSpec
from evenhand.stages.generate import GenerateSpec
from evenhand.stages.offline import reads_reference
from evenhand.stages.reference import ReferenceSpec
from evenhand.stages.sample_rewards import SampleRewardsSpec
from evenhand.stages.score_answers import ScoreAnswersSpec
from evenhand.stages.setup import Setup
from evenhand.train.flops import Work
from evenhand.train.policies import TEACHER

if TYPE_CHECKING:
    from evenhand.plan.plan import Plan
    from evenhand.store.store import Store
    from evenhand.train.method import Method

PREDICTED_KINDS = (FitSpec.KIND, ReferenceSpec.KIND, GenerateSpec.KIND, EvaluateRewardModelSpec.KIND, ScoreAnswersSpec.KIND)
"""Stages that open a network of the experiment's own shape. Looks at held-out rows during training are left out."""


@dataclass(frozen=True, slots=True)
class Predictor:
    """Predictions for the stages of a plan on a machine; `config` is that of the starting model."""

    plan: Plan
    store: Store
    config: Any
    speed: Speed

    @property
    def machine(self) -> Machine:
        return self.speed.machine

    def of(self, node: Node) -> StageCost | None:
        """None for a stage that opens none of the experiment's networks."""
        spec = node.spec
        if isinstance(spec, FitSpec):
            return self.fit(node, spec)
        if isinstance(spec, ReferenceSpec):
            adapter = Adapter(quantize=spec.quantize) if spec.quantize is not None else None
            return self.reads(rows_of(self.plan, self.store, node.inputs["tokens"]), spec.setup, kept=4, adapter=adapter)
        if isinstance(spec, EvaluateRewardModelSpec):
            rows = looked_at(self.plan, "heldout_preferences", spec.setup.lengths, 2)
            return self.reads(rows, spec.setup, kept=0, scores=True)
        if isinstance(spec, ScoreAnswersSpec):
            return self.scored(node, spec)
        return self.answers(spec) if isinstance(spec, GenerateSpec) else None

    def reads(
        self, rows: RowLengths, setup: Setup, *, kept: int, scores: bool = False, adapter: Adapter | None = None
    ) -> StageCost:
        """A pass without gradients over all rows; `kept` bytes stay of every completion token. `adapter` says how it is held."""
        net = network(self.config, precision(setup), adapter, scores=scores).frozen()
        job = MemoryLoad(largest=rows.largest(len(rows.sample), setup.tokens_per_microbatch))
        whole = times(rows.work(), rows.count / len(rows.sample))
        took = seconds.forward(net, whole, self.speed) + seconds.load(net)
        peak = held(net, job, self.machine).peak
        return StageCost(seconds=took, peak_bytes=peak, tokens=whole.tokens, disk_bytes=kept * whole.scored, known=rows.known)

    def scored(self, node: Node, spec: ScoreAnswersSpec) -> StageCost | None:
        """A pass over answers that are as long as they may be; of samples of training nobody knows how many there will be."""
        inputs = [self.plan[name].spec for name in node.inputs.values()]
        drawn = next((s for s in inputs if isinstance(s, GenerateSpec | SampleRewardsSpec)), None)
        if drawn is None:
            return None
        asked = looked_at(self.plan, drawn.split if isinstance(drawn, GenerateSpec) else HELDOUT, spec.setup.lengths, 0)
        each = drawn.completions_per_prompt if isinstance(drawn, SampleRewardsSpec) else 1
        row = (longest_prompt(asked), (spec.setup.lengths.completion,) * each)
        return self.reads(RowLengths(sample=(row,), count=drawn.prompts, known=False), spec.setup, kept=0, scores=True)

    def answers(self, spec: GenerateSpec) -> StageCost:
        """The sampling of the answers, and their log-probs under policy and start."""
        net = network(self.config, precision(spec.setup)).frozen()
        asked = looked_at(self.plan, spec.split, spec.setup.lengths, 0)
        prompt, new = longest_prompt(asked), spec.setup.lengths.completion
        rows = spec.prompts * spec.best_of
        waves = [SamplingWave(rows=min(rows, MAX_ROWS), prompt=prompt, new=new, group=spec.best_of)]
        read = Work(
            tokens=spec.prompts * (prompt + new), scored=spec.prompts * new, pairs=spec.prompts * (prompt + new) ** 2 // 2
        )
        took = rows / waves[0].rows * seconds.sample(net, waves[0], self.speed) + 2 * seconds.forward(net, read, self.speed)
        share = min(1.0, spec.setup.tokens_per_microbatch / max(read.tokens, 1))
        job = MemoryLoad(largest=times(read, share), beside=net.weight_bytes, sampled=waves[0])
        return StageCost(
            seconds=took + 2 * seconds.load(net), peak_bytes=held(net, job, self.machine).peak,
            tokens=read.tokens + rows * new, disk_bytes=12 * rows * new, known=False,
        )  # fmt: skip

    def fit(self, node: Node, spec: FitSpec) -> StageCost:
        """Training: what is sampled, read and learned in a step, times the steps; weights in the beginning and at the end."""
        method, train, compute = spec.build(), spec.train, spec.setup.compute
        net = network(self.config, precision(spec.setup), train.adapter, scores=method.network == "reward")
        net = net if method.gate is None else net.gated(self.gate(node, method.gate, net))
        rows = self.learned(node, spec, method)
        batches = rows.step(train.prompts_per_step, train.tokens_per_microbatch)
        steps = train.steps or ceil((train.epochs or 1) * rows.count / train.prompts_per_step)
        wave = self.sampled(spec, method, rows)
        shards = compute.world_size if compute.shard == "fsdp" else 1
        job = MemoryLoad(
            largest=rows.largest(train.prompts_per_step, train.tokens_per_microbatch), several=len(batches) > compute.world_size,
            steps=steps, beside=self.beside(node, net, method), checkpointing=train.gradient_checkpointing, sampled=wave,
            writes=True, shards=shards, optimizer=train.optimizer,
        )  # fmt: skip
        shared = 1 / compute.world_size
        step = shared * sum(seconds.learn(net, b, self.speed, checkpointing=train.gradient_checkpointing) for b in batches)
        step += shared * self.beside_a_step(node, method, net, rows, wave, train.prompts_per_step) + seconds.update(
            net, self.machine, shards, train.optimizer
        )
        step += shared * seconds.gate(net, train.prompts_per_step, self.speed)
        around = 0.0 if spec.world is not None else seconds.load(net)
        around += seconds.save(written(net), self.machine)
        tokens = steps * sum(b.tokens for b in batches) * (2 if wave is not None else 1)
        return StageCost(
            seconds=steps * step + around, step_seconds=steps * step, peak_bytes=held(net, job, self.machine).peak, tokens=tokens,
            disk_bytes=written(net), processes=compute.world_size, known=rows.known,
            waiting=written(net) / self.machine.disk,
        )  # fmt: skip

    def learned(self, node: Node, spec: FitSpec, method: Method) -> RowLengths:
        """The rows of a step: of the data, or as long as a sampled one may become."""
        if "tokens" in node.inputs and not method.online:
            return rows_of(self.plan, self.store, node.inputs["tokens"])
        if not method.online:
            return looked_at(self.plan, spec.data or method.split, spec.setup.lengths, 2)
        asked = looked_at(self.plan, spec.data or PROMPTS, spec.setup.lengths, 0)
        assert method.rollouts is not None
        answers = (spec.setup.lengths.completion,) * method.rollouts.completions_per_prompt
        return replace(asked, sample=tuple((p, answers) for p, _ in asked.sample), known=False)

    def sampled(self, spec: FitSpec, method: Method, rows: RowLengths) -> SamplingWave | None:
        """The wave of one step's rollouts."""
        if method.rollouts is None:
            return None
        group = method.rollouts.completions_per_prompt
        count = min(spec.train.prompts_per_step * group, MAX_ROWS)
        return SamplingWave(rows=count, prompt=longest_prompt(rows), new=spec.setup.lengths.completion, group=group)

    def beside_a_step(
        self, node: Node, method: Method, net: Network, rows: RowLengths, wave: SamplingWave | None, prompts: int
    ) -> float:
        """Seconds of sampling a step's rollouts, and of passes without gradients over its rows."""
        whole = times(rows.work(), prompts / len(rows.sample))
        stale = method.rollouts is not None and method.rollouts.schedule.staleness > 0
        reads = reads_reference(method, node.inputs) + (method.network in ("value", "critic") or stale)
        sampling = prompts * wave.group / wave.rows * seconds.sample(net, wave, self.speed) if wave is not None else 0.0
        return sampling + reads * seconds.forward(net, whole, self.speed)

    def beside(self, node: Node, net: Network, method: Method) -> float:
        """Bytes of frozen networks: the reference that steps read, a critic, a teacher, reward models.

        A policy without its adapter is its own reference, unless that is asked token by token, or moves.
        """
        itself = net.adapter is not None and not net.adapter.modules_to_save and method.reference_update is None
        whole = method.compares_exactly and method.reference != TEACHER
        own = whole or (reads_reference(method, node.inputs) and not itself)
        critic = method.network == "critic"
        models = sum(role.startswith(("reward_models/", "reward_references/", "teacher")) for role in node.inputs)
        return net.weight_bytes * (own + critic * 4 + models)

    def gate(self, node: Node, settings: GateSettings, net: Network) -> int:
        """Parameters of the gate on the reward model that it starts from."""
        start = self.plan[node.inputs["start"]].spec
        outputs = len(start.build().outputs) if isinstance(start, FitSpec) else 1
        return settings.size(net.hidden, outputs)


def precision(setup: Setup) -> Precision:
    return Precision(dtype=setup.compute.dtype, matmul=setup.compute.matmul)


def times(work: Work, factor: float) -> Work:
    """So many times the same work."""
    return Work(tokens=round(work.tokens * factor), scored=round(work.scored * factor), pairs=round(work.pairs * factor))


def longest_prompt(rows: RowLengths) -> int:
    return max(p for p, _ in rows.sample)
