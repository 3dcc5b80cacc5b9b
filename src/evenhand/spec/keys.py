"""Every key of an experiment file, read from what checks it, and which of them a user's words mean."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from evenhand.configfile.introspection import field_docs, parted, words
from evenhand.data.config import DataConfig, Split
from evenhand.data.source import DataSource, Mixture
from evenhand.engines.registry import ENGINES
from evenhand.environments.registry import ENVIRONMENTS, TurnLimits
from evenhand.errors import UserError
from evenhand.judges.config import LLM, Human, LocalLLM, PreferenceModel
from evenhand.methods import METHODS
from evenhand.methods.meanings import meaning
from evenhand.models.adapter_config import Adapter
from evenhand.registry import Registry
from evenhand.rewards.meanings import REWARDS as REWARD_MEANINGS
from evenhand.rewards.registry import REWARDS
from evenhand.spec import experiment as spec
from evenhand.spec import tuning
from evenhand.spec.aliases import ALIASES
from evenhand.spec.arms import BEST_OF_N, INJECTED, Arm, best_of_n
from evenhand.spec.pretrained import Adopted
from evenhand.store.fingerprint import default_of
from evenhand.synthesis.config import Annotate, Revise
from evenhand.trackers import TRACKERS
from evenhand.train.config import Lengths, SamplingConfig, Staleness, Train

ELSEWHERE = ("train", "sampling", "lengths", "train.adapter", "model.pretrain", "evaluation.planned", "judge")
"""Where the keys of a mapping are listed that occurs in several places."""
HIDDEN: Mapping[type, frozenset[str]] = {Arm: frozenset({"name", "parameters"}), Mixture: frozenset({"names", "weights", "caps"})}
"""Fields that are no keys of their own in a file."""
CALLED: Mapping[type, Mapping[str, str]] = {Mixture: {"sources": "mix"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key: `path` with NAME for what a user calls, its type in words, its default as it stands in a file."""

    path: str
    type: str
    default: str
    unit: str
    meaning: str

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The keys of one mapping; `title` tells apart mappings of one path, such as the kinds of judges."""

    path: str
    title: str
    about: str
    keys: tuple[Key, ...]


CLASSES: tuple[tuple[str, str, type], ...] = (
    ("", "The file", spec.Experiment),
    ("model", "", spec.ModelConfig),
    ("model.pretrain", "", spec.Pretrain),
    ("data", "", DataConfig),
    ("data.SPLIT", "a source", DataSource),
    ("data.SPLIT", "a mixture of sources", Mixture),
    ("splits.NAME", "", Split),
    ("lengths", "", Lengths),
    ("train", "", Train),
    ("train.adapter", "", Adapter),
    ("sampling", "", SamplingConfig),
    ("arms.NAME", "", Arm),
    ("arms.NAME.staleness", "", Staleness),
    ("reward_models.NAME", "one that exists (else the keys of an arm)", Adopted),
    ("judge", "a reward", spec.ScoringJudge),
    ("judge", "kind: llm", LLM),
    ("judge", "kind: local", LocalLLM),
    ("judge", "kind: preference_model", PreferenceModel),
    ("judge", "kind: human", Human),
    ("judge", "kind: jury", spec.JurySettings),
    ("evaluations.NAME", "", spec.MoreEvaluation),
    ("annotate", "", Annotate),
    ("revise", "", Revise),
    ("evaluation", "", spec.Evaluation),
    ("evaluation.planned", "", spec.Planned),
    ("environment", "", TurnLimits),
    ("runtime", "", spec.Runtime),
    ("runtime.resources.NAME", "", spec.Resources),
    ("doctor", "", spec.Doctor),
    ("tune", "", tuning.Tune),
    ("tune.objective", "a reward", tuning.MeanReward),
    ("tune.space.NAME", "a range", tuning.SearchRange),
    ("tuned", "", tuning.Tuned),
    ("tuned.arms.NAME", "", tuning.TunedArm),
)  # fmt: skip


def _of_method(name: str, function: Callable[..., Any]) -> Callable[[str], str]:
    return lambda key: meaning(name, key, inspect.getdoc(function) or "")


def _key(path: str, kind: str, text: str) -> Key:
    return Key(path=path, type=kind, default="", unit="", meaning=text)


MORE: Mapping[type, tuple[Key, ...]] = {
    spec.Experiment: (
        _key("extends", "text or a list", "Files that this one changes: a path, a built-in experiment, or a list."),
    ),
    DataSource: (_key("data.SPLIT.recipe", "text", "A known data set with its format and cleaning: docs/data.md."),),
    Mixture: (
        _key("data.SPLIT.mix.part", "text", "What a part is called; by default as its recipe, its Hub name or its file."),
        _key("data.SPLIT.mix.weight", "a number", "A part's share, before `temperature`; by default its size."),
        _key("data.SPLIT.mix.cap", "an integer", "Rows of a part at most."),
        _key("data.SPLIT.local", "a mapping", "Part to path, in place of its Hub name."),
    ),
}
"""Keys that stand in no dataclass: what is taken away before one is made."""


def sections() -> list[Section]:
    """All of them, in the order of a file: its mappings, then what methods, rewards, samplers and trackers take."""
    made = [
        Section(path=path, title=title, about=_first(cls), keys=(*_fields(path, cls), *MORE.get(cls, ())))
        for path, title, cls in CLASSES
    ]
    methods: dict[str, Callable[..., Any]] = {**METHODS, BEST_OF_N: best_of_n}
    for name, function in methods.items():
        keys = tuple(_parameters("arms.NAME", function, _of_method(name, function), skip=INJECTED))
        made.append(Section(path="arms.NAME", title=f"method: {name}", about=_first(function), keys=keys))
    for name in REWARDS:
        about, known = REWARD_MEANINGS.get(name, (_first(REWARDS[name]), {}))
        keys = tuple(_parameters("rewards.NAME", REWARDS[name], lambda key, known=known: known.get(key, ""), first=1))  # type: ignore[misc]
        made.append(Section(path="rewards.NAME", title=f"kind: {name}", about=about, keys=keys))
    others: tuple[tuple[str, Registry[Any]], ...] = (("engine", ENGINES), ("environment", ENVIRONMENTS), ("tracker", TRACKERS))
    for path, registry in others:
        for name in registry:
            keys = tuple(_parameters(path, registry[name], lambda key: OTHERS.get(key, ""), first=1))
            made.append(Section(path=path, title=f"kind: {name}", about=_first(registry[name]), keys=keys))
    return made


OTHERS: Mapping[str, str] = {
    "path": "The file or folder, inside the run directory.",
    "form": "How it is called: tags (<calc>1 + 2</calc>), or tool_call, a tool that the chat template is told of.",
    "role": "Whose turns its results are: tool, or user for a template without one.",
    "cost": "What each call takes off the reward.",
    "id": "What `verifiers.load_environment` is given.",
    "options": "Its keyword arguments.",
    "project": "What the tool files the runs under; the experiment's name where it is empty.",
    "mode": "offline writes on this machine only; online needs a login.",
    "model": "The name that the server gives its model.",
    "url": "Its address, which ends in /v1.",
    "load_by": "reload: it loads weights from a folder that it is told; adapter: it keeps its base, and each arm's adapter "
    "beside it; nothing: its weights never change.",
    "folder": "Where weights are handed over; by default this machine's folder for temporary files. A server elsewhere needs a "
    "disk that both see.",
    "tolerance": "Nats a token that its log-probs may differ by from the policy's, on average; by default 0.001, and for "
    "weights in less than float32 the step that logits are rounded to, 0.05 at the least.",
    "key_env": "The environment variable that holds the key, if it wants one.",
    "timeout": "Until a request counts as lost. In seconds.",
    "attempts": "How often a request is made: 1, 2, 4, ... seconds apart.",
    "concurrency": "Requests under way at a time.",
    "restarts": "How often in one call an engine that died is opened again.",
    "uri": "A tracking server; a file in the run directory where it is empty.",
}
"""Keys of samplers, environments and trackers."""


def _fields(path: str, cls: type) -> Iterator[Key]:
    hints, docs = get_type_hints(cls), field_docs(cls)
    for field in dataclasses.fields(cls):
        if not field.init or field.name in HIDDEN.get(cls, ()):
            continue
        name = CALLED.get(cls, {}).get(field.name, field.name)
        text, unit = parted(docs.get(field.name, ""))
        yield Key(
            path=f"{path}.{name}".strip("."), type=_type(hints[field.name]), default=_default(field), unit=unit, meaning=text
        )


def _parameters(
    path: str, function: Callable[..., Any], means: Callable[[str], str], *, first: int = 0, skip: tuple[str, ...] = ()
) -> Iterator[Key]:
    hints = get_type_hints(function)
    for p in list(inspect.signature(function).parameters.values())[first:]:
        if p.name in skip:
            continue
        text, unit = parted(means(p.name))
        default = "required" if p.default is p.empty and p.kind is not p.VAR_KEYWORD else _shown(p.default)
        yield Key(path=f"{path}.{p.name}", type=_type(hints.get(p.name, Any)), default=default, unit=unit, meaning=text)


def _type(hint: Any) -> str:
    """A type in words; that a key may be left out goes without saying."""
    return words(hint).removesuffix(" or nothing")


def _default(field: dataclasses.Field[Any]) -> str:
    default = default_of(field)
    return "required" if default is dataclasses.MISSING else _shown(default)


def _shown(value: Any) -> str:
    """A default as it stands in a file; "" where it is nothing, or a mapping of defaults of its own.

    >>> _shown(1e-08), _shown((0.9, 0.999)), _shown(True), _shown(None), _shown({})
    ('1e-08', '[0.9, 0.999]', 'true', '', '')
    """
    if value is None or value == "" or value is inspect.Parameter.empty or dataclasses.is_dataclass(value):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_shown, value)) + "]"
    return "" if value == {} else f"{value:.6g}" if isinstance(value, float) else str(value)


def _first(thing: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(thing) or "").partition("\n\n")[0].partition("Reduces to ")[0].split())


_UNDER = {"arms": "NAME", "reward_models": "NAME", "rewards": "NAME", "data": "SPLIT"}
_SPLITS = re.compile(r"data\.(demonstrations|preferences|prompts|heldout_preferences|heldout_prompts)\.")
_AGAIN = re.compile(r".+\.(train|sampling|lengths)(\.|$)")
"""Mappings that occur inside others, whose keys are listed once."""


@dataclass(frozen=True, slots=True)
class Found:
    """A key with the section that it stands in."""

    section: Section
    key: Key


def find(query: str) -> list[Found]:
    """The keys meant by `query`, in the order of the reference. Raises: UserError with the closest ones.

    >>> [f.key.path for f in find("arms.mine.train.warmup")], [f.key.path for f in find("lr")]
    (['train.warmup'], ['train.learning_rate'])
    >>> [f.key.path for f in find("cdpo")], [f.section.title for f in find("arms.dpo.beta")]
    (['arms.NAME.beta', 'arms.NAME.flip'], ['method: dpo'])
    """
    every = [Found(s, k) for s in sections() for k in s.keys]
    path = _normal(query)
    for wanted in dict.fromkeys((path, _normal(ALIASES.get(query, "")))):
        if wanted and (found := _meant(every, wanted)):
            return _of_its_kind(found, query)
    if found := [f for f in every if _kind(f) == query]:
        return found
    names = sorted({f.key.path for f in every} | {f.key.name for f in every})
    close = difflib.get_close_matches(query, names, n=3, cutoff=0.6)
    fix = f"did you mean {' or '.join(close)}?" if close else "`evenhand keys` lists the mappings of a file"
    raise UserError(f"no key is called '{query}'", where="keys", fix=fix)


def _meant(every: Sequence[Found], path: str) -> list[Found]:
    exact = [f for f in every if f.key.path == path]
    below = [f for f in every if f.section.path == path or f.key.path.startswith(f"{path}.")]
    named = [f for f in every if f.key.name == path] if "." not in path else []
    return below or exact or named


def _kind(found: Found) -> str:
    """The method or kind whose key it is; empty for what all have."""
    return found.section.title.partition(": ")[2]


def _of_its_kind(found: list[Found], query: str) -> list[Found]:
    """Below a name that is also a method's or a kind's, such as an arm `dpo`: its own keys, and those that all have."""
    named = query.split(".")[1:2]
    own = [f for f in found if [_kind(f)] == named]
    return [f for f in found if f in own or not _kind(f)] if own else found


def _normal(query: str) -> str:
    """A path with NAME or SPLIT for a user's own word, and a mapping that is listed elsewhere by that place."""
    path = _SPLITS.sub("data.SPLIT.", query)
    if again := _AGAIN.match(path):
        return path[again.start(1) :]
    first, _, rest = path.partition(".")
    under = _UNDER.get(first)
    if under == "NAME" and rest:
        return ".".join([first, under, *rest.split(".")[1:]])
    return f"{first}.NAME" if under == "NAME" else path
