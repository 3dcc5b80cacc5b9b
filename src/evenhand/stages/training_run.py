"""What a training stage is asked to do, and what it is made of before the first step."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from evenhand import methods
from evenhand.data.template import Renderer
from evenhand.methods import Method
from evenhand.models.backbone import Trunk
from evenhand.models.policy import Policy
from evenhand.objectives.router_balance import balanced
from evenhand.protocols import Objective, Reward
from evenhand.stages.setup import Setup
from evenhand.train.config import ReferenceUpdate, SamplingConfig, Staleness, Train
from evenhand.train.cost_accounting import Ledger
from evenhand.train.ranks import ONE, Ranks
from evenhand.types import Sampling


def method_defaults(spec: FitSpec) -> tuple[str, dict[str, Any]]:
    """What the method's parameters are where nobody names them."""
    parameters = inspect.signature(methods.METHODS[spec.method]).parameters.values()
    return f"methods.{spec.method}", {p.name: p.default for p in parameters if p.default is not p.empty}


@dataclass(frozen=True, kw_only=True, slots=True)
class FitSpec:
    """Training by a method: SFT, reward models and every arm. `parameters` are all of the method's, defaults filled in.

    `data` names a split in place of the method's own. `train.learning_rate` is settled. With `world` the network is that built-in
    world's own, new, but for what `shape` says otherwise.
    """

    KIND: ClassVar[str] = "fit"
    VERSION: ClassVar[int] = 4

    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict, metadata={"defaults": method_defaults})
    train: Train
    setup: Setup
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    reward: Mapping[str, Any] | None = None
    data: str | None = None
    supervise: str = "completion"
    world: str | None = None
    world_options: Mapping[str, Any] = field(default_factory=dict)
    """The world's, whose vocabulary may depend on them."""
    shape: Mapping[str, Any] = field(default_factory=dict)
    reference_update: ReferenceUpdate | None = field(default=None, metadata={"revision": lambda update: int(update is not None)})
    environment: str | Mapping[str, Any] | None = None
    """What answers between the turns of a sampled answer; None: answers of one turn."""
    staleness: Staleness | None = None
    """How old the weights are that sample; None: those that learn."""

    def build(self, *, steps: int = 1) -> Method:
        made = methods.build(self.method, self.parameters, steps=steps, max_tokens=self.setup.lengths.completion)
        return made.following(self.reference_update).stale(self.staleness)

    def sampler(self, seed: int = 0) -> Sampling:
        """The sampling with its completion limit."""
        return self.sampling.sampler(self.setup.lengths.completion, seed=seed)


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """One method, one seed: everything that is fixed before the first step.

    `held` are the ids of the prompts that validate: no training row has one of them. `memory` and `ranks`: see
    `train.loop.Loop`. `router_loss` is the weight of the loss that balances the routers of a mixture of experts. `following` is
    the reference where it follows the policy; losses on held-out rows are still taken against the start.
    """

    spec: FitSpec
    seed: int
    inputs: Mapping[str, Path]
    device: str
    renderer: Renderer
    method: Method
    model: Trunk
    steps: int
    ledger: Ledger
    reward: Reward | None = None
    held: frozenset[str] = frozenset()
    memory: dict[str, Tensor] = field(default_factory=dict)
    router_loss: float = 0.0
    following: Policy | None = None
    ranks: Ranks = ONE

    @property
    def objective(self) -> Objective:
        """What is minimised: the method's objective, and beside it the balance of the routers where that has a weight."""
        own = self.method.objective
        return balanced(own, self.router_loss) if self.router_loss else own

    @property
    def compared_to(self) -> Policy | None:
        """The frozen policy that the exact KL is taken to, for methods that use it."""
        return self.model.frozen if isinstance(self.model, Policy) else None

    @property
    def temperature(self) -> float:
        """What logits are divided by in every log-prob of this run."""
        return self.method.logit_temperature(self.spec.sampling.temperature)
