"""Any OpenAI-compatible endpoint as a chat model: bounded concurrency, retries with backoff, rate limit, cost limit."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from evenhand.errors import UserError
from evenhand.judges.chat import Reply, Request, Usage
from evenhand.judges.prices import Budget, Price

if TYPE_CHECKING:
    import httpx

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""HTTP answers that may be different next time."""
LONGEST_WAIT = 60.0
TOP_LOGPROBS = 20


class Busy(Exception):
    """The server could not be reached or asked to be left alone; `after` seconds, when it said for how long."""

    def __init__(self, what: str, after: float | None = None) -> None:
        self.after = after
        super().__init__(what)


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
        self._jitter = random.Random(0)  # only spaces retries out; nothing that is reported depends on it

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"model": self.model, "revision": self.revision, "extra": dict(self.extra)}

    def cost(self, reply: Reply) -> float | None:
        return self.price.cost(reply.usage) if self.price is not None and reply.usage is not None else None

    def complete(self, requests: Sequence[Request]) -> Iterator[tuple[int, Reply]]:
        """See `Chat.complete`. When something fails, answers already under way are still handed out before the error."""
        if not requests:
            return
        with self._client() as client, ThreadPoolExecutor(self.concurrency) as pool:
            running: dict[Future[Reply], int] = {}
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
                    index, error = running.pop(future), future.exception()
                    if error is None:
                        yield index, future.result()
                    else:
                        failure = failure or error
            if failure is not None:
                raise failure

    def _client(self) -> httpx.Client:
        import httpx

        key = os.environ.get(self.key_env, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(timeout=self.timeout, headers=headers, transport=self.transport)

    def _one(self, client: httpx.Client, request: Request, reserved: float) -> Reply:
        from tenacity import RetryError, Retrying, retry_if_exception_type, stop_after_attempt

        reply: Reply | None = None
        try:
            retrying = Retrying(
                stop=stop_after_attempt(self.attempts), wait=self._pause, sleep=self.sleep,
                retry=retry_if_exception_type(Busy),
            )  # fmt: skip
            for attempt in retrying:
                with attempt:
                    self._rate.wait()
                    reply = self._post(client, request)
        except RetryError as error:
            raise UserError(
                f"no answer after {self.attempts} attempts: {error.last_attempt.exception()}",
                where=self.url,
                why="answers so far are kept",
                fix="check that the server runs and is not overloaded, then run again; or lower `concurrency`",
            ) from error
        finally:
            self.budget.settle(reserved, reply)
        assert reply is not None
        return reply

    def _pause(self, state: Any) -> float:
        """What the server asked for, else 1, 2, 4, ... seconds with a random tenth more; a minute at the most."""
        error = state.outcome.exception()
        if isinstance(error, Busy) and error.after is not None:
            return min(error.after, LONGEST_WAIT)
        return min(2.0 ** (state.attempt_number - 1), LONGEST_WAIT) * (1 + 0.1 * self._jitter.random())

    def _post(self, client: httpx.Client, request: Request) -> Reply:
        import httpx

        try:
            response = client.post(f"{self.url.rstrip('/')}/chat/completions", json=self._body(request))
        except httpx.TransportError as error:
            raise Busy(f"{type(error).__name__}: {error}") from error
        if response.status_code in RETRIED:
            raise Busy(f"HTTP {response.status_code}", _retry_after(response.headers.get("retry-after")))
        if response.status_code != 200:
            return self._refused(response)
        return _reply(response, self.url)

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "temperature": request.temperature,
            self.tokens_field: request.max_tokens,
            **self.extra,
        }
        return body | ({"logprobs": True, "top_logprobs": TOP_LOGPROBS} if request.logprobs else {})

    def _refused(self, response: httpx.Response) -> Reply:
        """A refusal of content is an answer (an unusable one); everything else is for the user to mend."""
        said = response.text[:300]
        if response.status_code in (400, 403) and any(
            w in said.lower() for w in ("content_filter", "content management", "content policy")
        ):
            return Reply(text="", finish="content_filter")
        key = os.environ.get(self.key_env, "")
        if response.status_code in (401, 403):
            state = "was not accepted" if key else "is not set"
            raise UserError(
                f"HTTP {response.status_code}: the key in ${self.key_env} {state}", where=self.url, fix=f"set {self.key_env}"
            )
        said = said.replace(key, "***") if key else said
        raise UserError(f"HTTP {response.status_code}: {said}", where=self.url, fix="check the address and the model's name")


def _retry_after(header: str | None) -> float | None:
    """Seconds of a Retry-After header, given as a number or as a date."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass  # not a number: then it is a date
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return None  # neither; the usual backoff then


def _reply(response: httpx.Response, where: str) -> Reply:
    try:
        data = response.json()
        choice = data["choices"][0]
        text = choice["message"].get("content") or ""
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(
            f"not a chat completion: {response.text[:200]!r}", where=where, fix="give the address that ends in /v1"
        ) from error
    usage = data.get("usage") or {}
    counted = None
    if "prompt_tokens" in usage:
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        counted = Usage(prompt=usage["prompt_tokens"], completion=usage.get("completion_tokens") or 0, cached=cached)
    content = (choice.get("logprobs") or {}).get("content") or ()
    tokens = tuple((t["token"], {o["token"]: o["logprob"] for o in t.get("top_logprobs") or ()}) for t in content)
    return Reply(text=text, finish=choice.get("finish_reason") or "stop", usage=counted, tokens=tokens)
