"""REINFORCE against a slow moving average: a credit with a setting and a memory, as a dataclass."""

from dataclasses import dataclass

from evenhand.methods import Method, method
from evenhand.methods.gradients import gradient
from evenhand.objectives import PolicyGradient
from evenhand.train.examples import Example
from evenhand.train.rollouts import CREDITS, Credit, Experience, Rollouts


@dataclass(frozen=True)
class DecayingAverage(Credit):
    """`A_i = r_i - b`, then `b <- decay b + (1 - decay) mean(r)`; every answer of every prompt alike."""

    decay: float = 0.5

    def __call__(self, experience: Experience) -> list[Example]:
        reward = experience.completion_reward
        known = experience.memory.get("average", 0.0)
        experience.memory["average"] = self.decay * known + (1 - self.decay) * float(reward.nanmean())
        return experience.credited((reward - known).nan_to_num(0.0))


CREDITS.register("decaying_average")(DecayingAverage())


@method
def reinforce_average(*, completions_per_prompt: int = 4, decay: float = 0.5, kl: float = 0.05) -> Method:
    """REINFORCE against a moving average of the rewards, KL in the reward."""
    rollouts = Rollouts(completions_per_prompt=completions_per_prompt, credit=DecayingAverage(decay))
    return gradient(PolicyGradient(surrogate="reinforce", reduce="sequence_sum"), rollouts, kl=kl)
