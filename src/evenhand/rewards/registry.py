"""Rewards by name: from a mapping in an experiment file to a `Reward`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evenhand import worlds
from evenhand.configfile.schema import from_signature
from evenhand.core.process import AGGREGATES
from evenhand.errors import UserError, did_you_mean, one_of
from evenhand.protocols import Reward
from evenhand.registry import Registry
from evenhand.rewards import code, combine, constraints, function, judged, remote, rubric, shaping, verifiable
from evenhand.rewards.environment import EnvironmentReward
from evenhand.rewards.judged import Open
from evenhand.rewards.process import ProcessReward
from evenhand.rewards.tournament import RULES, Tournament
from evenhand.worlds.arithmetic import ArithmeticGold
from evenhand.worlds.countdown import CountdownGold


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What builders may use: loaded rewards by name, the folder that paths are relative to, and how a judging model is opened."""

    resources: Mapping[str, Reward] = field(default_factory=dict)
    base: Path = Path(".")
    open_model: Open | None = None

    def build(self, spec: Mapping[str, Any] | str, where: str) -> Reward:
        return get(spec, self.resources, base=self.base, where=where, open_model=self.open_model)


Builder = Callable[..., Reward]
REWARDS = Registry[Builder]("reward", facts=("graded",), named_by=("kind",))
"""Kind -> `builder(context, **keys of the spec)`. A builder's signature is its schema: the one place where keys are listed.
`graded`: declared where scores lie between wrong (0) and right (1), or beyond."""
reward = REWARDS.register
"""Decorator: the builder below makes the reward of that kind."""


def get(
    spec: Mapping[str, Any] | str,
    resources: Mapping[str, Reward] | None = None,
    *,
    base: str | Path = ".",
    where: str = "reward",
    open_model: Open | None = None,
) -> Reward:
    """The reward of a spec: `{"kind": K, ...}`, or K alone. `resources` holds rewards that need a loaded artifact, by name.

    Raises UserError that names the key: unknown kind, unknown or missing key.

    >>> get({"kind": "length", "unit": "words"}).name
    'length'
    >>> get("vadre")
    Traceback (most recent call last):
        ...
    evenhand.errors.UserError: reward.kind: unknown reward 'vadre'
      fix: did you mean 'vader'?
    """
    builder, given = REWARDS.check(spec, where=where)
    if builder.__module__ == __name__ and builder is not _gold:  # a world and a user's builder look at their own values
        given = from_signature(builder, given, where, skip=("context",))
    return builder(Context(resources=resources or {}, base=Path(base), open_model=open_model), **given)


@reward("gold")
def _gold(context: Context, world: str, **options: Any) -> Reward:
    return worlds.get(world, **options).gold


@reward("model", graded=True)
def _model(context: Context, name: str, rule: str | None = None) -> Reward:
    """`rule` is for a preference model, which scores a group by a tournament, borda (its default) or knock_out; and for a process
    reward model, whose steps it joins: min, product, last, mean or differences."""
    if name not in context.resources:
        raise UserError(
            f"there is no reward model '{name}' here",
            where="reward.name",
            fix=did_you_mean(name, context.resources) if context.resources else "define it under reward_models",
        )
    reward = context.resources[name]
    if rule is None:
        return reward
    if isinstance(reward, ProcessReward):
        return replace(reward, aggregate=one_of("rule", rule, AGGREGATES, where="reward.rule"))
    if not isinstance(reward, Tournament):
        fix = "remove `rule`, it is for preference models and process reward models"
        raise UserError(f"'{name}' scores each answer by itself", where="reward.rule", fix=fix)
    return replace(reward, rule=rule)


reward("vader", graded=True)(lambda context: verifiable.vader())


@reward("number")
def _number(context: Context, field: str = "answer", tolerance: float = 0.0) -> Reward:
    return verifiable.last_number(field=field, tolerance=tolerance)


@reward("math")
def _math(context: Context, field: str = "answer") -> Reward:
    return verifiable.math_answer(field=field)


@reward("format")
def _format(context: Context, pattern: str) -> Reward:
    return verifiable.form(pattern=pattern)


reward("thinking")(lambda context: verifiable.thinking())


@reward("tagged")
def _tagged(context: Context, reward: Mapping[str, Any] | str, tag: str = "answer", missing: float = 0.0) -> Reward:
    return combine.Tagged(inner=context.build(reward, "reward.reward"), tag=tag, missing=missing)


@reward("two_words", graded=True)
def _two_words(context: Context, field: str = "reference") -> Reward:
    return verifiable.two_words(field=field)


@reward("rouge_l", graded=True)
def _rouge_l(context: Context, field: str = "reference") -> Reward:
    return verifiable.rouge_l(field=field)


@reward("countdown", graded=True)
def _countdown(context: Context, reasoning: bool = False) -> Reward:
    return CountdownGold(reasoning=reasoning)


@reward("arithmetic")
def _arithmetic(context: Context, reasoning: bool = False) -> Reward:
    return ArithmeticGold(reasoning=reasoning)


reward("environment")(lambda context: EnvironmentReward())
reward("ifeval")(lambda context: constraints.ifeval())


@reward("code")
def _code(
    context: Context, run_untrusted_code: bool, field: str = "tests", seconds: float = 5.0, memory: int = 512,
    isolation: code.Isolation = "auto",
) -> Reward:  # fmt: skip
    """`isolation` none: without namespaces, where the machine has none and may be harmed; see docs/security.md."""
    if run_untrusted_code is not True:
        raise UserError(
            "the reward 'code' runs programs that a model wrote",
            where="reward.run_untrusted_code",
            fix="set run_untrusted_code: true if this machine may do that",
        )
    return code.unit_tests(field=field, limits=code.Limits(seconds=seconds, memory=memory), isolation=isolation)


@reward("function")
def _function(context: Context, path: str, sees: str = "completion", seconds: float = 600.0) -> Reward:
    """`seconds`: how long the function may take for the answers to one prompt."""
    kind, name = function.SEES[one_of("value", sees, function.SEES, where="reward.sees")], function.without_folder(path)
    scored = kind(function.load_function(path, base=context.base), name=name)
    return function.FunctionReward(scored, seconds=seconds, name=name)


@reward("endpoint")
def _endpoint(
    context: Context, url: str, columns: Sequence[str] = (), key_env: str = "", timeout: float = 60.0, attempts: int = 6,
    concurrency: int = 8,
) -> Reward:  # fmt: skip
    """`columns` of the data that the server sees besides prompt and answers."""
    return remote.RemoteReward(
        url=url, columns=tuple(columns), key_env=key_env, timeout=timeout, attempts=attempts, concurrency=concurrency
    )


@reward("length", graded=True)
def _length(context: Context, unit: str, over: int = 0) -> Reward:
    return shaping.length(unit=unit, over=over)


@reward("overlong", graded=True)
def _overlong(context: Context, limit: int, buffer: int, unit: str = "tokens") -> Reward:
    return shaping.overlong(limit=limit, buffer=buffer, unit=unit)


@reward("unfinished")
def _unfinished(context: Context, reward: Mapping[str, Any] | str, rule: str, value: float = 0.0) -> Reward:
    return shaping.Unfinished(inner=context.build(reward, "reward.reward"), rule=rule, value=value)


@reward("clip")
def _clip(context: Context, reward: Mapping[str, Any] | str, low: float = -float("inf"), high: float = float("inf")) -> Reward:
    return combine.Clipped(inner=context.build(reward, "reward.reward"), low=low, high=high)


@reward("affine")
def _affine(context: Context, reward: Mapping[str, Any] | str, shift: float = 0.0, scale: float = 1.0) -> Reward:
    return combine.Affine(inner=context.build(reward, "reward.reward"), shift=shift, scale=scale)


@reward("weighted")
def _weighted(context: Context, parts: Sequence[Mapping[str, Any]]) -> Reward:
    """`parts`: a list of `{reward: SPEC, weight: W, name: NAME}`; the name defaults to the reward's kind."""
    terms: dict[str, tuple[Reward, float]] = {}
    for i, part in enumerate(parts):
        where = f"reward.parts[{i}]"
        name, reward, weight = _part(context, where, **from_signature(_part, part, where, skip=_PLACE))
        if name in terms:
            raise UserError(f"two parts are called '{name}'", where=where, fix="give each a `name`")
        terms[name] = reward, weight
    return combine.WeightedReward(terms)


_PLACE = ("context", "where", "judge")


def _part(
    context: Context, where: str, reward: Mapping[str, Any] | str, weight: float = 1.0, name: str = ""
) -> tuple[str, Reward, float]:
    kind_of = reward if isinstance(reward, str) else str(reward.get("kind"))
    return name or kind_of, context.build(reward, f"{where}.reward"), weight


@reward("ensemble")
def _ensemble(context: Context, members: Sequence[Mapping[str, Any] | str], rule: str = "mean", k: float = 1.0) -> Reward:
    built = tuple(context.build(member, f"reward.members[{i}]") for i, member in enumerate(members))
    return combine.Ensemble(built, combine.ensemble_rule(rule, k=k))


@reward("judge")
def _judge(context: Context, judge: Mapping[str, Any], rule: str = "borda") -> Reward:
    """`judge`: the settings of a judging model, as of the section `judge`; `rule` is for a template that compares two answers."""
    one_of("rule", rule, RULES, where="reward.rule")
    return judged.judged(judge, context.open_model, where="reward.judge", rule=rule)


@reward("rubric")
def _rubric(context: Context, criteria: Sequence[Mapping[str, Any]], judge: Mapping[str, Any] | None = None) -> Reward:
    """`criteria`: a list of `{reward: SPEC, weight: W, least: L, name: NAME}`: met where the reward is at least L; or of
    `{ask: TEXT, weight: W, name: NAME}`: met where the judging model `judge` says so."""
    made: dict[str, rubric.Criterion] = {}
    for i, given in enumerate(criteria):
        where = f"reward.criteria[{i}]"
        if "ask" in given:
            name, criterion = _asked(context, where, judge, **from_signature(_asked, given, where, skip=_PLACE))
        else:
            name, criterion = _criterion(context, where, **from_signature(_criterion, given, where, skip=_PLACE))
        if name in made:
            raise UserError(f"two criteria are called '{name}'", where=where, fix="give each a `name`")
        made[name] = criterion
    return rubric.Rubric(made)


def _criterion(
    context: Context, where: str, reward: Mapping[str, Any] | str, weight: float = 1.0, least: float = 1.0, name: str = ""
) -> tuple[str, rubric.Criterion]:
    kind_of = reward if isinstance(reward, str) else str(reward.get("kind"))
    return name or kind_of, rubric.Criterion(reward=context.build(reward, f"{where}.reward"), weight=weight, least=least)


def _asked(
    context: Context, where: str, judge: Any, ask: str, weight: float = 1.0, least: float = 0.5, name: str = ""
) -> tuple[str, rubric.Criterion]:
    if judge is None:
        raise UserError("nobody is asked", where=f"{where}.ask", fix="add `judge: {kind: llm, model: NAME}` to the rubric")
    built = judged.judged(judge, context.open_model, where="reward.judge", template=judged.criterion(ask))
    return name or ask, rubric.Criterion(reward=built, weight=weight, least=least)
