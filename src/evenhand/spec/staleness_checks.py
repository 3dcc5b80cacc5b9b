"""Checks of an arm whose rollouts are sampled by older weights."""

from __future__ import annotations

from collections.abc import Iterator

from evenhand.errors import UserError
from evenhand.objectives import PolicyGradient, part_of
from evenhand.spec.arms import Arm
from evenhand.train.method import Method
from evenhand.train.policies import DATA, GENERATOR, LAST
from evenhand.train.rollouts import Rollouts
from evenhand.types import Need


def staleness_problems(arm: Arm, method: Method, where: str) -> Iterator[UserError]:
    """Older weights where nothing is sampled, or where a method means by "the policy that sampled" one that learns."""
    asked, plan, place = arm.staleness, method.rollouts, f"{where}.staleness"
    if asked is None:
        return
    if not asked.steps:
        why = "with `steps: 0` the last policy is the one that sampled"
        yield UserError("`proximal` has no effect here", where=f"{place}.proximal", why=why, fix="remove it, or raise `steps`")
        return
    if plan is None:
        yield UserError(f"{arm.method} samples nothing", where=place, why="it learns from fixed data", fix="remove it")
        return
    if plan.schedule.initialise != LAST:
        why = "the weights that sample a round would be those of the round before, which training has left"
        yield UserError("every round starts anew", where=place, why=why, fix="use `initialise: last`, or remove it")
    if method.reference == GENERATOR and not _sampler_matches(arm, method, plan):
        why = "its log-probs of an answer are read where it samples, and here they are not the trainer's own"
        fix = "use `reference: start` if it has that, sample without temperatures, top_p, top_k and min_p, or remove it"
        yield UserError(f"the reference of {arm.method} is the policy that sampled", where=place, why=why, fix=fix)
    if asked.proximal == GENERATOR:
        yield from _clip_problems(arm, method, plan, f"{place}.proximal")


def _clip_problems(arm: Arm, method: Method, plan: Rollouts, place: str) -> Iterator[UserError]:
    """What cannot go with a clip around the policy that sampled."""
    own, last = method.objective, "use `proximal: last`"
    gradient = part_of(own, PolicyGradient)
    if Need.OLD_LOGP not in own.needs:
        yield UserError(f"{arm.method} has no clip with these settings", where=place, why="nothing is around a policy", fix=last)
    elif gradient is not None and gradient.importance:
        why = "the ratio to the policy that sampled is the clip's own: every other weight would be 1"
        yield UserError("a clip around the generator, and `importance`", where=place, why=why, fix=f"remove one, or {last}")
    elif plan.schedule.renew:
        why = "a renewal puts the clip around the last policy"
        yield UserError("a clip around the generator, and `renew`", where=place, why=why, fix=f"remove one, or {last}")
    elif plan.exploration.partner == DATA or plan.exploration.given:
        why = "the data's own answers have no log-probs of a sampler"
        yield UserError(f"not every answer of {arm.method} has a generator", where=place, why=why, fix=last)


def uncorrected(method: Method, proximal: str) -> bool:
    """Whether a policy gradient meets answers of older weights as if they were its own: without weight or mask, and with a clip,
    if any, around the last policy."""
    own = part_of(method.objective, PolicyGradient)
    if own is None or own.importance or own.off_policy_mask:
        return False
    return Need.BEHAVIOUR_LOGP not in own.needs and not (Need.OLD_LOGP in own.needs and proximal == GENERATOR)


def _sampler_matches(arm: Arm, method: Method, plan: Rollouts) -> bool:
    sampling = arm.sampling.sampler(arm.lengths.completion)
    return plan.exploration.sampler_matches_trainer(sampling, method.logit_temperature(sampling.temperature))
