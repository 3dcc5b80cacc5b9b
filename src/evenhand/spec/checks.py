"""Every fault of an experiment that needs no device to find: each with the key path it was set at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from evenhand.configfile.schema import from_signature
from evenhand.configfile.validation_errors import fault_of
from evenhand.data.config import FOR_JUDGES, TRAINED
from evenhand.errors import UserError, did_you_mean
from evenhand.judges.config import Human
from evenhand.methods import METHODS, PREFERENCES, Method, build
from evenhand.objectives import PolicyGradient, part_of
from evenhand.spec import effects, search_spaces, value_ranges
from evenhand.spec.arms import BEST_OF_N, GATED, RATED_BY, Arm
from evenhand.spec.experiment import Experiment
from evenhand.spec.reward_resolution import kind_in, resolved_reward, reward_problem
from evenhand.spec.structure_checks import environment_problem, structure_problems
from evenhand.spec.tuning import MeanReward
from evenhand.synthesis.config import REVISED
from evenhand.train.config import SamplingConfig, Train
from evenhand.train.policies import DATA, GENERATOR, INITIAL_POLICY, LAST, TEACHER
from evenhand.train.rollouts import Rollouts
from evenhand.types import Need


def problems(e: Experiment) -> Iterator[UserError]:
    """Every fault that needs no device to find."""
    yield from structure_problems(e)
    if shared := list(_shared(e)):
        yield from shared  # said once here rather than again by every arm
        return
    made, faults = _trained(e)
    yield from faults
    for place in ("sft", "model.pretrain"):
        if place in made:
            yield from _stage_problems(e, made[place], place)
    yield from fault_of(e.all_adopted)
    yield from value_ranges.problems(e, made)
    yield from _tune_problems(e)
    yield from search_spaces.problems(e)
    for place, arm in made.items():
        section = place.partition(".")[0]
        if section not in ("arms", "reward_models"):
            continue
        yield from _arm_problems(e, arm, place)
        with suppress(UserError):  # a parameter that is no choice, told already
            yield from effects.arm_problems(arm, value_ranges.own_settings(e, place, arm), place)
        if section == "reward_models" and not _gives_reward(e, arm):
            yield UserError(
                f"{arm.method} does not give a reward", where=f"{place}.method",
                fix=f"use {', '.join(_giving_rewards())}",
            )  # fmt: skip


def _trained(e: Experiment) -> tuple[dict[str, Arm], list[UserError]]:
    """Everything that is trained, by its place in the file, as far as it can be made; and the faults of the rest."""
    made, faults = dict[str, Arm](), []
    for place, make in e.trainings().items():
        try:
            if (arm := make()) is not None:
                made[place] = arm
        except UserError as error:
            faults.append(error)
    return made, faults


def _stage_problems(e: Experiment, stage: Arm, where: str) -> Iterator[UserError]:
    yield from _length_problem(stage, where)
    yield from _optimizer_problem(e, stage, where)
    yield from effects.stage_problems(stage, value_ranges.own_settings(e, where, stage), where)


def _shared(e: Experiment) -> Iterator[UserError]:
    """Faults of the settings that every arm shares."""
    for name, kind in (("train", Train), ("sampling", SamplingConfig)):
        yield from fault_of(from_signature, kind, getattr(e, name), name)


def _length_problem(arm: Arm, where: str) -> Iterator[UserError]:
    """A training is as long as it is told to be: there is no length that fits all data."""
    if (arm.train.steps is None) == (arm.train.epochs is None):
        fix = "for example `train: {steps: 200}`, or `train: {epochs: 1}`"
        if arm.train.steps is not None:
            fix = "take one of them away where it is shared or extended: `epochs: null`, or train.epochs=null on the command line"
        yield UserError("name either `steps` or `epochs`", where=f"{where}.train", fix=fix)


def _optimizer_problem(e: Experiment, arm: Arm, where: str) -> Iterator[UserError]:
    """What cannot be spread over ranks, or rounded by chance."""
    if arm.train.optimizer == "adamw_8bit" and e.runtime.shard == "fsdp":
        yield UserError(
            "moments in eight bits are not spread over ranks", where=f"{where}.train.optimizer",
            why="a block of them would lie on two", fix="use `runtime: {shard: ddp}`, or `train: {optimizer: adamw}`",
        )  # fmt: skip
    if arm.train.optimizer == "adamw_8bit" and e.model.dtype == "float16" and arm.method != GATED:  # of which a gate alone learns
        yield UserError(
            "weights in float16 are not rounded by chance", where=f"{where}.train.optimizer",
            fix="set `model.dtype` to bfloat16 or float32, or use `train: {optimizer: adamw}`",
        )  # fmt: skip


def _giving_rewards() -> list[str]:
    """The methods that make reward models, as they are by default."""
    found = []
    for name in METHODS:
        with suppress(TypeError, UserError):  # one that has no defaults
            if build(name, {}, steps=1, max_tokens=1).implied_reward is not None:
                found.append(name)
    return found


def _gives_reward(e: Experiment, arm: Arm) -> bool:
    try:
        return arm.trained and arm.build().implied_reward is not None
    except UserError:  # told already
        return True


def _arm_problems(e: Experiment, arm: Arm, where: str) -> Iterator[UserError]:
    known = e.stages() | (set(e.arms) - {arm.name})
    if arm.method == GATED:
        yield from gate_problems(e, arm, where)
    elif arm.initial_policy not in known:
        yield UserError(
            f"cannot start from '{arm.initial_policy}'", where=f"{where}.initial_policy",
            fix=did_you_mean(arm.initial_policy, known),
        )  # fmt: skip
    if arm.method == BEST_OF_N and arm.reward is None:
        yield UserError("best_of_n chooses by a reward", where=where, fix="add `reward:` (a reward model's name, ...)")
    if arm.method == BEST_OF_N and arm.reward is not None:
        yield from reward_problem(arm.reward, e, f"{where}.reward")
    if not arm.trained:
        if arm.lengths != e.lengths:
            yield UserError("an arm that is not trained has no limits of its own", where=f"{where}.lengths", fix="remove it")
        return
    try:
        method = arm.build()
    except UserError as error:  # a parameter that is no choice
        refused = (key for key, value in arm.parameters.items() if isinstance(value, str) and f"'{value}'" in error.what)
        yield error.placed(".".join((where, *list(refused)[:1])))
        return
    missing = method.objective.needs - method.provides
    if missing:
        yield UserError(f"{arm.method} needs {', '.join(sorted(missing))}, which nothing provides", where=where)
    yield from _length_problem(arm, where)
    yield from _optimizer_problem(e, arm, where)
    yield from _following_problems(arm, method, where)
    yield from staleness_problems(arm, method, where)
    yield from _environment_problems(e, arm, method, where)
    if (method.reference == TEACHER) != (arm.teacher is not None):
        fix = "add `teacher: {path: FOLDER}`" if arm.teacher is None else "remove `teacher`"
        says = "learns from a teacher" if arm.teacher is None else "learns from no teacher; it has no effect"
        yield UserError(f"{arm.method} {says}", where=f"{where}.teacher", fix=fix)
    if method.rewarded and arm.reward is None:
        yield UserError(f"{arm.method} samples and needs a reward", where=where, fix="add `reward:` (a reward model's name, ...)")
    best = arm.train.keep_checkpoint == "best"
    if arm.data is not None and arm.data not in (splits := (*TRAINED, *REVISED, FOR_JUDGES, *e.splits)):
        yield UserError(f"the data has no split '{arm.data}'", where=f"{where}.data", fix=did_you_mean(arm.data, splits))
    if not method.rewarded and arm.reward is not None and not best:
        by = "a teacher" if method.online else "fixed data"
        yield UserError(
            f"{arm.method} learns from {by}; a reward has no effect", where=f"{where}.reward",
            fix="remove it, or choose the best weights by it: `train: {keep_checkpoint: best}`",
        )  # fmt: skip
    if best and arm.reward is not None and method.network == "reward":
        yield UserError("a reward model gives no answers to reward", where=f"{where}.reward", fix="remove it")
    yield from _snapshot_problems(arm, where)
    if best:
        yield from _best_checkpoint_problems(e, arm, method, where)
    if arm.reward is not None:
        yield from reward_problem(arm.reward, e, f"{where}.reward")


def _best_checkpoint_problems(e: Experiment, arm: Arm, method: Method, where: str) -> Iterator[UserError]:
    if arm.reward is None and method.online and not method.rewarded:
        what = f"{arm.method} has nothing to choose the best weights by"
        fix = "add a `reward:` to choose the weights by, or keep the last"
        yield UserError(what, where=f"{where}.train.keep_checkpoint", fix=fix)
    rounds = arm.build(steps=arm.train.steps or 100).rounds
    if not (arm.train.validate_every or rounds):
        what = "`keep_checkpoint: best` needs to know how often to measure"
        yield UserError(what, where=f"{where}.train", fix="add `validate_every:` steps")
    if arm.train.choose_by != "loss" and method.data != PREFERENCES:
        yield UserError(
            f"{arm.method} has no {arm.train.choose_by} of pairs", where=f"{where}.train.choose_by",
            fix="choose by the loss, or by a `reward:`",
        )  # fmt: skip
    if arm.train.validation_prompts < 1:
        yield UserError("`keep_checkpoint: best` needs prompts", where=f"{where}.train.validation_prompts", fix="use at least 1")


def _following_problems(arm: Arm, method: Method, where: str) -> Iterator[UserError]:
    """A reference that is to follow the policy, where there is none that could."""
    update, place = method.reference_update, f"{where}.reference_update"
    if update is None:
        return
    hybrid = method.rollouts is not None and method.rollouts.schedule.hybrid
    if method.reference != INITIAL_POLICY or method.label_baseline is not None:
        yield UserError(f"{arm.method} is not held to the start", where=place, fix="remove it")
    elif (method.compares_exactly and not method.online) or hybrid:
        why = "the data's pairs" if hybrid else "its whole distributions"
        why = f"{why} are compared with the start once and for all"
        yield UserError(f"the reference of {arm.method} cannot move", where=place, why=why, fix="remove it")
    elif arm.train.adapter is not None and method.compares_exactly:
        why = "the network that it is compared with has no adapter that could"
        yield UserError(f"the reference of {arm.method} cannot move", where=place, why=why, fix="train all weights")
    elif arm.train.adapter is not None and update.mix < 1:
        why = "a mixture of two adapters' factors is not the mixture of the changes that they make"
        yield UserError(f"mix is {update.mix:g} under an adapter", where=place, why=why, fix="use `mix: 1`, or train all weights")


def _environment_problems(e: Experiment, arm: Arm, method: Method, where: str) -> Iterator[UserError]:
    """An environment where nothing is sampled, or a reward of one where there is none."""
    yield from environment_problem(arm.environment, f"{where}.environment")
    if arm.environment is not None and not method.online:
        yield UserError(f"{arm.method} samples nothing", where=f"{where}.environment", fix="remove it")
    if method.rewarded and e.environment_of(arm) is None and kind_in(resolved_reward(arm.reward, e), "environment"):
        fix = "add `environment: {kind: ...}`"
        yield UserError("no environment gives a reward", where=f"{where}.reward", fix=fix)


def _snapshot_problems(arm: Arm, where: str) -> Iterator[UserError]:
    """Faults of the steps whose weights are to be judged."""
    place, named, steps = f"{where}.train.snapshots", arm.train.snapshots, arm.train.steps
    if named == "rounds":
        if not arm.build(steps=steps or 100).rounds:
            yield UserError(f"{arm.method} has no rounds", where=place, fix="name steps, such as [50, 100]")
        elif steps is None:
            yield UserError("how long a round is, is not known before training", where=place, fix="give `steps:` for `epochs:`")
    elif wrong := [step for step in named if step < 1 or (steps is not None and step >= steps)]:
        yield UserError(
            f"there are no weights of step {wrong[0]} on the way", where=place,
            fix=f"name steps from 1 to {(steps or 2) - 1}; the last step is the arm itself" if steps else "name steps from 1 on",
        )  # fmt: skip


def _tune_problems(e: Experiment) -> Iterator[UserError]:
    """Faults of the sections `tune` and `tuned` that need no arm to be seen."""
    tune = e.tune
    for where, seeds in (("tune.seeds", tune.seeds if tune else ()), ("tuned.seeds", e.tuned.seeds if e.tuned else ())):
        if shared := sorted(set(seeds) & set(e.seeds)):
            yield UserError(
                f"seed {shared[0]} is one of the comparison's", where=where,
                why="settings chosen on a run that is compared make that arm look better than it is",
                fix="use seeds that `seeds:` does not have",
            )  # fmt: skip
    if tune is None:
        return
    if not tune.seeds or len(set(tune.seeds)) != len(tune.seeds):
        yield UserError(f"seeds must be different and at least one, got {list(tune.seeds)}", where="tune.seeds")
    for key, least in (("trials", 2), ("prompts", 2)):
        if (value := getattr(tune, key)) < least:
            yield UserError(f"{value} {key}", where=f"tune.{key}", fix=f"use at least {least}")
    if not 0 < tune.steps <= 1:
        yield UserError(f"{tune.steps:g} is out of range", where="tune.steps", fix="give a share of the budget, at most 1")
    for name in tune.arms.keys() - e.arms.keys():
        yield UserError(f"no arm is called '{name}'", where=f"tune.arms.{name}", fix=did_you_mean(name, e.arms))
    people = [where for where, judge in e.judges().items() if isinstance(judge, Human)]
    if people and not isinstance(tune.objective, MeanReward):
        yield UserError(
            "people would have to label every trial", where=people[0],
            fix="tune by a reward: `tune: {objective: {reward: NAME}}`, or by another judge in a file that extends this one",
        )  # fmt: skip
    if isinstance(tune.objective, MeanReward):
        yield from reward_problem(tune.objective.reward, e, "tune.objective.reward")


def gate_problems(e: Experiment, arm: Arm, where: str) -> Iterator[UserError]:
    """The faults of an arm of the method GATED; other methods start from a policy."""
    mixed = [name for name, raw in e.recipes().items() if raw.get("method") == RATED_BY]
    if arm.name not in e.reward_models:
        yield UserError(f"{arm.method} trains no policy", where=f"{where}.method", fix="move it to `reward_models`")
    elif arm.initial_policy not in mixed:
        fix = (
            did_you_mean(arm.initial_policy, mixed) if mixed else f"add a reward model `{{method: {RATED_BY}, ...}}`, and name it"
        )
        yield UserError(
            f"'{arm.initial_policy}' is no {RATED_BY} of this experiment", where=f"{where}.initial_policy",
            why="a gate mixes the scores of one", fix=fix,
        )  # fmt: skip
    if arm.train.adapter is not None:
        why = "its gate is the only part that learns"
        yield UserError(f"{arm.method} has nothing to adapt", where=f"{where}.train.adapter", why=why, fix="remove it")


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
