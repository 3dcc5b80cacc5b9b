"""Any OpenAI-compatible endpoint as a chat model: bounded concurrency, retries with backoff, rate limit, cost limit."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from evenhand.display import hidden
from evenhand.errors import UserError
from evenhand.judges.address import check_address, check_extra, filled, joined
from evenhand.judges.chat import TOO_LONG, UNUSABLE, ChatReply, Request
from evenhand.judges.completion import Odd, parse
from evenhand.judges.prices import Budget, Price
from evenhand.judges.retries import Busy, asked, check_busy

if TYPE_CHECKING:
    import httpx

LONGEST_BODY = 32 << 20
"""Bytes of one answer that are read, unpacked; more is no answer."""
TOP_LOGPROBS = 20
_TOO_LONG = ("context length", "context_length", "context window", "maximum context", "too many tokens", "max_model_len",
             "prompt is too long", "input is too long", "reduce the length",
             "string_above_max_length", "exceeds the available context")  # fmt: skip
_FILTERED = ("content_filter", "content management", "content policy")


class RateLimit:
    """At most `per_minute` calls of `wait` return in a minute, evenly spaced; None is no limit."""

    def __init__(self, per_minute: float | None, sleep: Callable[[float], None], clock: Callable[[], float]) -> None:
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._sleep, self._clock = sleep, clock
        self._next, self._lock = 0.0, threading.Lock()

    def wait(self) -> None:
        with self._lock:
            now = self._clock()
            start = max(now, self._next)
            self._next = start + self._gap
        if start > now:
            self._sleep(start - now)


@dataclass(kw_only=True)
class Endpoint:
    """`POST {url}/chat/completions`. The key is read from the environment variable `key_env` and stays in memory.

    `identity` holds the model, its `revision` and the `extra` request fields, not the address: the same model behind another
    port is the same judge. `tokens_field` is what the server calls the limit on new tokens.
    """

    url: str
    model: str
    revision: str = ""
    key_env: str = "OPENAI_API_KEY"
    extra: Mapping[str, Any] = field(default_factory=dict)
    tokens_field: str = "max_tokens"
    concurrency: int = 8
    requests_per_minute: float | None = None
    timeout: float = 120.0
    attempts: int = 8
    price: Price | None = None
    max_cost: float | None = None
    transport: httpx.BaseTransport | None = None
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.budget = Budget(self.max_cost, self.price, self.model)
        self._rate = RateLimit(self.requests_per_minute, self.sleep, self.clock)
        check_address(self.url)
        check_extra(self.extra, self._key())
        self._url, self._secrets = self.url, [self._key()]

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"model": self.model, "revision": self.revision, "extra": dict(self.extra)}

    def cost(self, reply: ChatReply) -> float | None:
        return self.price.cost(reply.usage) if self.price is not None and reply.usage is not None else None

    def complete(self, requests: Sequence[Request]) -> Iterator[tuple[int, ChatReply]]:
        """See `Chat.complete`. When something fails, answers already under way are still handed out before the error."""
        if not requests:
            return
        with self._client() as client, ThreadPoolExecutor(self.concurrency) as pool:
            running: dict[Future[ChatReply], int] = {}
            failure: BaseException | None = None
            waiting = list(range(len(requests)))[::-1]
            while running or (waiting and failure is None):
                while waiting and failure is None and len(running) < self.concurrency:
                    try:
                        reserved = self.budget.reserve(requests[waiting[-1]])
                    except UserError as error:
                        failure = error
                        break
                    index = waiting.pop()
                    running[pool.submit(self._one, client, requests[index], reserved)] = index
                for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                    index, broken = running.pop(future), future.exception()
                    if broken is None:
                        yield index, future.result()
                    else:
                        failure = failure or broken
            if failure is not None:
                raise failure

    def _key(self) -> str:
        key = os.environ.get(self.key_env, "").strip()
        if not key.isascii() or not key.isprintable():
            raise UserError("holds characters that no key has", where=f"${self.key_env}", fix=f"set {self.key_env} anew")
        return key

    def _client(self) -> httpx.Client:
        import httpx

        key, used = self._key(), [self._key()]
        self._url = joined(filled(self.url, used), "chat/completions")
        filled(self.extra, used)
        self._secrets = used
        _hide_in_logs(used)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            return httpx.Client(timeout=self.timeout, headers=headers, transport=self.transport)
        except ValueError as error:
            fix = "check HTTP_PROXY, HTTPS_PROXY and ALL_PROXY"
            raise UserError("the proxies of the environment are no addresses", where=self.url, fix=fix) from error

    def _hidden(self, text: str) -> str:
        return hidden(text, self._secrets)

    def _one(self, client: httpx.Client, request: Request, reserved: float) -> ChatReply:
        reply: ChatReply | None = None

        def once() -> ChatReply:
            self._rate.wait()
            return self._post(client, request)

        try:
            reply = asked(once, attempts=self.attempts, sleep=self.sleep)
        except Busy as busy:
            raise UserError(
                f"no answer after {self.attempts} attempts: {self._hidden(str(busy))}",
                where=self.url,
                why="answers so far are kept",
                fix="check that the server runs and is not overloaded, then run again; or lower `concurrency`",
            ) from None  # what the library says may hold the key
        except Odd as odd:
            reply = ChatReply(text="", finish=UNUSABLE, note=f"not a chat completion: {odd}")
        finally:
            self.budget.settle(reserved, reply)
        return self._without_secrets(reply)

    def _without_secrets(self, reply: ChatReply) -> ChatReply:
        """What is kept, shown and written: a server may echo the key it was sent."""
        tokens = tuple((self._hidden(t), {self._hidden(k): v for k, v in top.items()}) for t, top in reply.tokens)
        return replace(reply, text=self._hidden(reply.text), note=self._hidden(reply.note), tokens=tokens)

    def _post(self, client: httpx.Client, request: Request) -> ChatReply:
        import httpx

        try:
            with client.stream("POST", self._url, json=self._body(request)) as response:
                status, headers, body = response.status_code, response.headers, self._read(response)
        except httpx.TransportError as error:
            raise Busy(f"{type(error).__name__}: {error}") from None
        except (httpx.RequestError, httpx.StreamError) as error:  # what it sent is not packed as it says
            raise Odd(f"{type(error).__name__}: {error}") from None
        except httpx.InvalidURL as error:
            raise UserError("the address cannot be used", where=self.url, fix="check `endpoint`") from error
        check_busy(status, headers.get("retry-after"))
        if status != 200:
            return self._refused(status, self._hidden(body.decode("utf-8", "replace")))
        return parse(body)

    def _read(self, response: httpx.Response) -> bytes:
        """The body, as far as an answer may be long and may take; a packed one is unpacked piece by piece."""
        parts, size, end = [], 0, self.clock() + 2 * self.timeout
        for part in response.iter_bytes(1 << 16):
            parts.append(part)
            size += len(part)
            if size > LONGEST_BODY:
                raise Odd(f"more than {LONGEST_BODY >> 20} MiB")
            if self.clock() > end:
                raise Odd(f"not complete after {2 * self.timeout:g} seconds")
        return b"".join(parts)

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "temperature": request.temperature,
            self.tokens_field: request.max_tokens,
            **filled(self.extra, []),
        }
        return body | ({"logprobs": True, "top_logprobs": TOP_LOGPROBS} if request.logprobs else {})

    def _refused(self, status: int, said: str) -> ChatReply:
        """A refused question is an unusable answer; everything else is for the user to mend."""
        lower = said.lower()
        if status in (400, 403) and any(w in lower for w in _FILTERED):
            return ChatReply(text="", finish="content_filter")
        if status in (400, 413, 422) and any(w in lower for w in _TOO_LONG):
            return ChatReply(text="", finish=TOO_LONG, note=f"HTTP {status}: {said[:300]}")
        if status in (401, 403):
            state = "was not accepted" if self._key() else "is not set"
            raise UserError(f"HTTP {status}: the key in ${self.key_env} {state}", where=self.url, fix=f"set {self.key_env}")
        raise UserError(
            f"HTTP {status}: {said[:300]}", where=self.url,
            fix="check the model's name and the address: it usually ends in /v1",
        )  # fmt: skip


class _Hiding(logging.Filter):
    """Strikes secrets out of what the HTTP library logs: it logs addresses."""

    def __init__(self, secrets: Sequence[str]) -> None:
        super().__init__()
        self.secrets = secrets

    @override
    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = hidden(record.getMessage(), self.secrets), ()
        return True


def _hide_in_logs(secrets: Sequence[str]) -> None:
    for name in ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.http2", "httpcore.proxy"):
        logger = logging.getLogger(name)
        for old in [f for f in logger.filters if isinstance(f, _Hiding) and set(f.secrets) <= set(secrets)]:
            logger.removeFilter(old)
        logger.addFilter(_Hiding(secrets))
