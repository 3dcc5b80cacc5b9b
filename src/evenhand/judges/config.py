"""What an experiment or a command may say about a judging model. The dataclasses are the schema."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from evenhand.engines.registry import DEFAULT
from evenhand.errors import UserError
from evenhand.judges import template as templates
from evenhand.judges.cache import Cache
from evenhand.judges.jury import Repeated
from evenhand.judges.llm import LLMJudge, Orders
from evenhand.judges.registry import JUDGES
from evenhand.judges.template import Template

if TYPE_CHECKING:
    from evenhand.data.template import Renderer
    from evenhand.models.policy import Policy

_how = partial(field, metadata={"decides": False})
"""A setting that says how answers are got, not what they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LLM:
    """A language model behind an OpenAI-compatible endpoint. Asked in one order, its bias for a place is not measured."""

    kind: Literal["llm"]
    """llm: behind an endpoint."""
    model: str
    """The model's name at the endpoint."""
    endpoint: str = _how(default="https://api.openai.com/v1")
    """An OpenAI-compatible address that ends in /v1."""
    template: str = "helpfulness"
    """A built-in judge template, or a YAML file."""
    verdict: Literal["text", "logprobs"] = "text"
    """Read from the words, or from the log-probs of the verdict's token."""
    revision: str = ""
    """Tells apart models that a server gives one name."""
    temperature: float = 0.0
    """Of the judge's own sampling; 0 is greedy."""
    max_tokens: int | None = None
    """Longest reply; by default the template's. In tokens."""
    attempts: int = 3
    """How often an unreadable reply is asked for."""
    key_env: str = _how(default="OPENAI_API_KEY")
    """The environment variable that holds the key."""
    concurrency: int = _how(default=8)
    """Requests under way at a time."""
    requests_per_minute: float | None = _how(default=None)
    """At most so many."""
    timeout: float = _how(default=120.0)
    """Until a request counts as lost. In seconds."""
    max_cost: float | None = _how(default=None)
    """Checked before a request is sent. In dollars."""
    price: Mapping[str, float] | None = _how(default=None)
    """Per million tokens: {input, output, cached}. In dollars."""
    cache: str | None = _how(default=None)
    """A file of replies to share; by default one beside the artifacts."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Sent with every request as it is."""
    tokens_field: str = "max_tokens"
    """What the server calls the limit of a reply."""
    self_test: int = _how(default=20)
    """Prompts that the judge is tested with first; 0 leaves the test out."""
    orders: Orders = "both"
    """Whether each pair is asked in both orders, or in one for half the price."""
    repeats: int = 1
    """How often each pair is judged; the mean counts, and how much the judge differs from itself becomes known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalLLM:
    """A model on this machine; see `LLM`."""

    kind: Literal["local"]
    """local: a model on this machine."""
    path: str
    """A folder or a Hub name."""
    template: str = "helpfulness"
    """A built-in judge template, or a YAML file."""
    verdict: Literal["text", "logprobs"] = "text"
    """Read from the words, or from the log-probs of the verdict's token."""
    temperature: float = 0.0
    """Of the judge's own sampling; 0 is greedy."""
    max_tokens: int | None = None
    """Longest reply; by default the template's. In tokens."""
    attempts: int = 3
    """How often an unreadable reply is asked for."""
    cache: str | None = _how(default=None)
    """A file of replies to share; by default one beside the artifacts."""
    self_test: int = _how(default=20)
    """Prompts that the judge is tested with first; 0 leaves the test out."""
    orders: Orders = "both"
    """Whether each pair is asked in both orders, or in one for half the price."""
    repeats: int = 1
    """How often each pair is judged; the mean counts, and how much the judge differs from itself becomes known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferenceModel:
    """A pairwise preference model: a causal model that continues both answers with the letter of the better one.

    P(a preferred) = (P(A | a first) + P(B | b first)) / 2 from the letters' log-probs, as in RLHF Workflow (Dong et al. 2024).
    """

    kind: Literal["preference_model"]
    """preference_model: a language model that names the better of two answers by a letter."""
    path: str
    """A folder or a Hub name."""
    template: str = "preference_model"
    """How it is asked."""
    cache: str | None = _how(default=None)
    """A file of replies to share; by default one beside the artifacts."""
    self_test: int = _how(default=20)
    """Prompts that the judge is tested with first; 0 leaves the test out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnJudge:
    """A judge of the user's: `judge: {kind: NAME, ...}` stands for this, the rest being its settings."""

    kind: Literal["own"]
    """own: what a judge of a plugin's becomes; a file gives the judge's own name as its kind."""
    judge: str
    """Its name."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Its settings."""
    self_test: int = _how(default=20)
    """Prompts that the judge is tested with first; 0 leaves the test out."""

    @property
    def builder(self) -> dict[str, Any]:
        """The settings as the registry takes them."""
        return {"kind": self.judge, **self.settings}


@dataclass(frozen=True, kw_only=True, slots=True)
class Human:
    """People, on the page of `evenhand label`: a run stops until the pairs are labelled, and the same command goes on."""

    kind: Literal["human"]
    """human: people."""
    labels: str = _how(default="human-labels.jsonl")
    """The file of their labels, which `evenhand label RUN` writes; from the working directory."""
    annotators: int = 1
    """How many people must have labelled a pair; the mean of their labels counts."""
    self_test: ClassVar[int] = 0
    """Nobody is asked about ruined answers."""


Settings = LLM | LocalLLM | PreferenceModel
Comparing = Settings | Human | OwnJudge
"""Every judge that compares pairs itself; the others compare a reward's scores."""


def problem(settings: Comparing) -> UserError | None:
    """What is wrong with the settings, as far as it can be known before anything runs."""
    try:
        if isinstance(settings, OwnJudge):
            JUDGES.check(settings.builder, where="judge")
            return None
        if isinstance(settings, Human):
            if settings.annotators < 1:
                raise UserError(f"{settings.annotators} annotators", where="judge.annotators", fix="use at least 1")
            return None
        template = templates.get(settings.template)
        _check_numbers(settings)
        _check_repeats(settings)
        if getattr(settings, "verdict", "logprobs") == "logprobs":
            from evenhand.judges.parse_verdict import variants

            variants(template)
        if isinstance(settings, LLM):
            endpoint(settings)
    except UserError as error:
        return error
    return None


_ABOVE_ZERO = ("max_tokens", "attempts", "repeats", "concurrency", "requests_per_minute", "timeout")
_NOT_BELOW_ZERO = ("temperature", "self_test", "max_cost")


def _check_numbers(settings: Settings) -> None:
    for names, fix in ((_ABOVE_ZERO, "use a number above 0"), (_NOT_BELOW_ZERO, "use 0 or more")):
        for name in names:
            value = getattr(settings, name, None)
            if value is not None and not (math.isfinite(value) and (value > 0 or (value == 0 and names is _NOT_BELOW_ZERO))):
                raise UserError(f"{name} is {value}", where=f"judge.{name}", fix=fix)
    for name, dollars in (getattr(settings, "price", None) or {}).items():
        if not 0 <= dollars < math.inf:
            raise UserError(f"a price of {dollars}", where=f"judge.price.{name}", fix="use dollars per million tokens")


def _check_repeats(settings: Settings) -> None:
    repeats, temperature = getattr(settings, "repeats", 1), getattr(settings, "temperature", 0.0)
    if repeats > 1 and (temperature == 0 or getattr(settings, "verdict", "text") == "logprobs"):
        raise UserError(
            "repeats of a judge that always says the same", where="judge.repeats",
            why="at temperature 0, and by log-probs, the next answer is the same one",
            fix="set `temperature:`, e.g. 0.7, with `verdict: text`; or leave `repeats` out",
        )  # fmt: skip


def endpoint(settings: LLM) -> Any:
    """The endpoint of an `LLM`, as a chat model."""
    from evenhand.judges.endpoint import Endpoint
    from evenhand.judges.prices import price_of

    return Endpoint(
        url=settings.endpoint, model=settings.model, revision=settings.revision, key_env=settings.key_env, extra=settings.extra,
        tokens_field=settings.tokens_field, concurrency=settings.concurrency, requests_per_minute=settings.requests_per_minute,
        timeout=settings.timeout, price=price_of(settings.model, settings.price), max_cost=settings.max_cost,
    )  # fmt: skip


def build(
    settings: Settings, *, cache: Path | None = None, opened: tuple[Policy, Renderer] | None = None, weights: str = "",
    engine: str | Mapping[str, Any] = DEFAULT, template: Template | None = None,
) -> LLMJudge | Repeated:  # fmt: skip
    """The judge of the settings, asking by `template` in place of the one that they name. `cache` is used when they name none;
    `opened` is the model of a judge on this machine, and `weights` a fingerprint of its files, which the cache is keyed by;
    `engine` samples its answers."""
    template = templates.get(settings.template) if template is None else template
    replies = Cache(Path(settings.cache).expanduser() if settings.cache else cache)
    if isinstance(settings, LLM):
        chat = endpoint(settings)
    elif opened is None:
        raise ValueError("a judge on this machine needs its model and renderer")
    else:
        from evenhand.judges.local import LocalChat

        chat = LocalChat(*opened, name=settings.path, weights=weights, engine=engine)
    if isinstance(settings, PreferenceModel):
        return LLMJudge(chat, template, form="logprobs", attempts=1, cache=replies)
    judge = LLMJudge(
        chat, template, form=settings.verdict, attempts=settings.attempts, temperature=settings.temperature,
        max_tokens=settings.max_tokens, cache=replies, orders=settings.orders,
    )  # fmt: skip
    return judge if settings.repeats == 1 else Repeated(judge, settings.repeats)
