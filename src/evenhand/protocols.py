"""The seams. Everything else is data or a pure function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from evenhand.types import Batch, Group, Head, Message, ModelOut, Need, Prompt, Sampling, Scores, Terms, TokenGroup

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module, Parameter


class Model(Protocol):
    """A trainable network seen through batches: a policy, a reward model, or a policy with a value head."""

    def __call__(self, batch: Batch, reads: frozenset[Head], *, temperature: float = 1.0) -> ModelOut: ...

    def parameters(self) -> Iterator[Parameter]: ...


class Engine(Protocol):
    """Samples. Keeps the order of prompts; returns token ids and behaviour log-probs, never a text round trip."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling | Sequence[Sampling],
        *,
        max_prompt: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Group]:
        """One group of `n` completions per prompt. A sequence gives sampling parameters per completion index (length n).

        Prompts keep their last `max_prompt` tokens; `progress(done, total)` counts completions.
        """
        ...


class Reward(Protocol):
    """Scores whole groups, so pairwise judges and diversity need no second interface. One `Scores` per group, in order."""

    def __call__(self, groups: Sequence[Group], /) -> list[Scores]: ...


@dataclass(frozen=True, slots=True)
class Action:
    """One turn of the model: its `text`, and whether it is the `last` that its limits allow (cut by the limit of tokens, or the
    last of its turns): the environment's answer to it is then read for its reward alone."""

    text: str
    last: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """An environment's answer to one turn of the model: turns of others to put behind it, its reward, and whether that is all."""

    messages: tuple[Message, ...] = ()
    reward: float = 0.0
    done: bool = False


class Environment(Protocol):
    """What answers between the turns of one answer: a tool, a game, a user who asks back. Each answer has one of its own."""

    def reset(self, prompt: Prompt) -> Prompt:
        """Begin. The prompt as the model is to see it, say with a system turn or `tools` of the environment's: the same for all
        answers to one prompt, whose id it keeps."""
        ...

    def step(self, action: Action) -> Reply:
        """One turn further. What it raises costs this answer its score, and no other."""
        ...


class TrainedReward(Reward, Protocol):
    """A reward model as a reward, with the two views of it that its card is read off."""

    def unscaled(self) -> TrainedReward:
        """The same on the scale on which the model learned that P(chosen preferred) = sigma(difference): log-loss, calibration
        and margins mean nothing on another one."""
        ...

    def roomy(self) -> TrainedReward:
        """The same with room for twice the answer: a probe adds words at the end, which must not be cut off before scoring."""
        ...


class Objective(Protocol):
    """A loss as unreduced terms. `denominators` [K] is this batch's additive share, known before the forward pass."""

    @property
    def reads(self) -> frozenset[Head]: ...

    @property
    def needs(self) -> frozenset[Need]: ...

    def denominators(self, batch: Batch) -> Tensor: ...

    def __call__(self, out: ModelOut, batch: Batch) -> Terms: ...


CARRIED = "carried/"


class StepObjective(Objective, Protocol):
    """An objective with Need.STATISTICS: its terms need a statistic of the whole optimizer step (AOT's sort, KTO's z0).

    The loop runs a no-grad pass over the step and lets `prepare` store the statistic in the batches, so that the gradient
    does not depend on how the step is cut into micro-batches or ranks. A statistic whose name begins with CARRIED is there again
    in the next step, and in every checkpoint; in the first step it is absent.
    """

    def prepare(self, batches: Sequence[Batch], outs: Sequence[ModelOut]) -> list[Batch]: ...


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step: its micro-batches, and what the source already knows about it (reward, length, ...)."""

    batches: Sequence[Batch]
    metrics: Mapping[str, float] = field(default_factory=dict)


class Source(Protocol):
    """Where batches come from. Offline and online methods differ only in here."""

    @property
    def groups(self) -> Sequence[TokenGroup]:
        """What steps are drawn from at the time: a rollout, or the whole data set."""
        ...

    @property
    def carried(self) -> Mapping[str, Module]:
        """Networks that change over the run beside the policy, and are saved with it."""
        ...

    def step(self, index: int) -> Step:
        """Optimizer step `index`, from 0. Asked in order; after a resume, first for the step that was not finished."""
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
