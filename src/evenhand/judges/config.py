"""What an experiment or a command may say about a judging model. The dataclasses are the schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from evenhand.engines.registry import DEFAULT
from evenhand.errors import UserError
from evenhand.judges import template as templates
from evenhand.judges.cache import Cache
from evenhand.judges.llm import LLMJudge, Orders
from evenhand.judges.registry import JUDGES

if TYPE_CHECKING:
    from evenhand.data.template import Renderer
    from evenhand.models.policy import Policy

_how = partial(field, metadata={"decides": False})
"""A setting that says how answers are got, not what they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LLM:
    """A language model behind an OpenAI-compatible endpoint, asked by `template` in both orders.

    `verdict`: read from the words, or from the `logprobs` of the verdict's token. `attempts`: how often an unreadable answer
    is asked for. `price` in dollars per million tokens `{input, output, cached}`; `max_cost` in dollars stops before a
    request that might exceed it. The key is read from the environment variable `key_env`. `cache`: a file of answers to
    share; by default one beside the artifacts. `self_test`: prompts that the judge is tested with first, 0 for none. `orders`:
    `one` asks each pair once, for half the price; position bias then stays in the verdicts and cannot be measured on them.
    """

    kind: Literal["llm"]
    model: str
    endpoint: str = _how(default="https://api.openai.com/v1")
    template: str = "helpfulness"
    verdict: Literal["text", "logprobs"] = "text"
    revision: str = ""
    temperature: float = 0.0
    max_tokens: int | None = None
    attempts: int = 3
    key_env: str = _how(default="OPENAI_API_KEY")
    concurrency: int = _how(default=8)
    requests_per_minute: float | None = _how(default=None)
    timeout: float = _how(default=120.0)
    max_cost: float | None = _how(default=None)
    price: Mapping[str, float] | None = _how(default=None)
    cache: str | None = _how(default=None)
    extra: Mapping[str, Any] = field(default_factory=dict)
    tokens_field: str = "max_tokens"
    self_test: int = _how(default=20)
    orders: Orders = "both"


@dataclass(frozen=True, kw_only=True, slots=True)
class LocalLLM:
    """A model on this machine, asked by `template` in both orders; see `LLM`. `path` is a folder or a hub name."""

    kind: Literal["local"]
    path: str
    template: str = "helpfulness"
    verdict: Literal["text", "logprobs"] = "text"
    temperature: float = 0.0
    max_tokens: int | None = None
    attempts: int = 3
    cache: str | None = _how(default=None)
    self_test: int = _how(default=20)
    orders: Orders = "both"


@dataclass(frozen=True, kw_only=True, slots=True)
class PreferenceModel:
    """A pairwise preference model: a causal model that continues both answers with the letter of the better one.

    P(a preferred) = (P(A | a first) + P(B | b first)) / 2 from the letters' log-probs, as in RLHF Workflow (Dong et al. 2024).
    """

    kind: Literal["preference_model"]
    path: str
    template: str = "preference_model"
    cache: str | None = _how(default=None)
    self_test: int = _how(default=20)


@dataclass(frozen=True, kw_only=True, slots=True)
class OwnJudge:
    """A judge of the user's: `judge: {kind: NAME, ...}` stands for this, the rest being its settings."""

    kind: Literal["own"]
    judge: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    self_test: int = _how(default=20)

    @property
    def builder(self) -> dict[str, Any]:
        """The settings as the registry takes them."""
        return {"kind": self.judge, **self.settings}


Settings = LLM | LocalLLM | PreferenceModel


def problem(settings: Settings | OwnJudge) -> UserError | None:
    """What is wrong with the settings, as far as it can be known before anything runs."""
    try:
        if isinstance(settings, OwnJudge):
            JUDGES.check(settings.builder, where="judge")
            return None
        template = templates.get(settings.template)
        if getattr(settings, "verdict", "logprobs") == "logprobs":
            from evenhand.judges.parse_verdict import variants

            variants(template)
        if isinstance(settings, LLM):
            endpoint(settings)
    except UserError as error:
        return error
    return None


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
    engine: str | Mapping[str, Any] = DEFAULT,
) -> LLMJudge:  # fmt: skip
    """The judge of the settings. `cache` is used when they name none; `opened` is the model of a judge on this machine, and
    `weights` a fingerprint of its files, which the cache is keyed by; `engine` samples its answers."""
    template = templates.get(settings.template)
    replies = Cache(Path(settings.cache).expanduser() if settings.cache else cache)
    if isinstance(settings, LLM):
        return LLMJudge(
            endpoint(settings), template, form=settings.verdict, attempts=settings.attempts,
            temperature=settings.temperature, max_tokens=settings.max_tokens, cache=replies, orders=settings.orders,
        )  # fmt: skip
    from evenhand.judges.local import LocalChat

    if opened is None:
        raise ValueError("a judge on this machine needs its model and renderer")
    chat = LocalChat(*opened, name=settings.path, weights=weights, engine=engine)
    if isinstance(settings, PreferenceModel):
        return LLMJudge(chat, template, form="logprobs", attempts=1, cache=replies)
    return LLMJudge(
        chat, template, form=settings.verdict, attempts=settings.attempts, temperature=settings.temperature,
        max_tokens=settings.max_tokens, cache=replies, orders=settings.orders,
    )  # fmt: skip
