"""Who writes the completions of a group, at which temperatures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from evenhand.engines.checks import per_completion, with_tokens
from evenhand.errors import one_of
from evenhand.protocols import Engine
from evenhand.seeding import keyed
from evenhand.train.policies import DATA, INITIAL_POLICY, MIXTURE, NONE, PREVIOUS
from evenhand.types import Group, Prompt, Sampling


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """How groups are made to differ, and what happens to those that do not.

    Completion i is sampled at temperatures[i mod len] (empty: the experiment's). `partner` lets the frozen initial policy, the
    policy as it was one rollout ago, or the mixture `policy^(1 - mixture) start^mixture` write the second half of every group, or
    the data its last answer. `refill` draws up to that many further times for prompts whose group is flat (DAPO). `given` is the
    share of the prompts that are not sampled for: the data's own answers stand in their place (GKD).
    """

    temperatures: tuple[float, ...] = ()
    partner: str = NONE
    refill: int = 0
    given: float = 0.0
    mixture: float = 0.0

    def __post_init__(self) -> None:
        one_of("partner", self.partner, (NONE, INITIAL_POLICY, PREVIOUS, MIXTURE, DATA), where="rollouts")

    def of_partner(self, n: int) -> int:
        """How many of a group's n completions the partner writes."""
        return 1 if self.partner == DATA else n // 2

    def settings(self, n: int, sampling: Sampling) -> Sampling | list[Sampling]:
        """The sampling parameters of a group: of all its completions, or of each."""
        mixed = self.temperatures
        return [replace(sampling, temperature=mixed[i % len(mixed)]) for i in range(n)] if mixed else sampling

    def sampler_matches_trainer(self, sampling: Sampling, temperature: float) -> bool:
        """True when the sampler's log-probs are the trainer's own: nothing cut off, one author, and training's temperature.

        >>> Exploration().sampler_matches_trainer(Sampling(top_k=5), 1.0)
        False
        """
        used = set(self.temperatures) or {sampling.temperature}
        return self.partner == NONE and not self.given and not sampling.truncates and used == {temperature}

    def draws_the_policy(self, n: int, sampling: Sampling, temperature: float, index: int) -> bool:
        """Whether a group's completion `index` is the policy's own, drawn at that temperature (with tokens cut off, perhaps).

        >>> [Exploration(partner="start").draws_the_policy(4, Sampling(), 1.0, i) for i in range(4)]
        [True, True, False, False]
        """
        partners = 0 if self.partner == NONE else self.of_partner(n)
        used = self.temperatures[index % len(self.temperatures)] if self.temperatures else sampling.temperature
        return index < n - partners and used == temperature


@dataclass(kw_only=True)
class Sampler:
    """A group per prompt; with a partner, the last of its completions are the partner's, at the same temperatures."""

    engine: Engine
    sampling: Sampling
    partner: Engine | None = None
    max_prompt: int | None = None
    """Prompts keep their last `max_prompt` tokens, as in training."""

    def greedy(self, prompts: Sequence[Prompt]) -> list[Group]:
        """The policy's likeliest token at every place: one answer per prompt."""
        likeliest = replace(self.sampling, temperature=0.0, top_p=1.0, top_k=0, min_p=0.0)
        return self.engine.generate(prompts, 1, likeliest, max_prompt=self.max_prompt)

    def __call__(self, prompts: Sequence[Prompt], n: int, exploration: Exploration, *, seed: int) -> list[Group]:
        settings = exploration.settings(n, replace(self.sampling, seed=seed))
        if self.partner is None:
            return with_tokens(self.engine.generate(prompts, n, settings, max_prompt=self.max_prompt))
        each, first = per_completion(n, settings), n - exploration.of_partner(n)
        others = [replace(s, seed=keyed(s.seed, "partner")) for s in each[first:]]  # else equal weights would say equal things
        own = with_tokens(self.engine.generate(prompts, first, each[:first], max_prompt=self.max_prompt))
        theirs = self.partner.generate(prompts, len(others), others, max_prompt=self.max_prompt)
        return [replace(a, completions=a.completions + b.completions, scores=()) for a, b in zip(own, theirs, strict=True)]
