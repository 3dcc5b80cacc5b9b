"""An OpenAI-compatible completions server as a sampler: token ids in, token ids and log-probs out, weights loaded from a folder.

`POST URL/completions` with the prompt's ids, one request per answer. Of vLLM's additions it uses `return_token_ids`,
`stop_token_ids`, `ignore_eos`, and of its development routes (`VLLM_SERVER_DEV_MODE=1`) `collective_rpc` with `reload_weights`
and `reset_prefix_cache`. What it was tried with stands in docs/engines.md.
"""

from __future__ import annotations

import fcntl
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from evenhand.display import hidden
from evenhand.engines.decode_batch import DecodeRow
from evenhand.engines.rows import vllm_parameters
from evenhand.engines.synced import EngineAnswer, EngineDied, this_process
from evenhand.errors import UserError
from evenhand.judges.address import check_address, joined, named_key
from evenhand.judges.completion import Odd
from evenhand.judges.retries import Busy, asked, check_busy
from evenhand.store.fingerprint import digest, user_cache
from evenhand.types import Finish

if TYPE_CHECKING:
    import httpx

LOOPBACK = "http://127.0.0.1:8000/v1"
_log = logging.getLogger(__name__)
_FINISH = {"stop": Finish.STOP, "length": Finish.LENGTH}


@dataclass(kw_only=True)
class ServerBackend:
    """See `evenhand.engines.synced.InferenceBackend`. The key is that of the variable `key_env`, and is in no message.

    Arms that run side by side on this machine take turns: a file in the user's cache is locked while the server has the weights
    of one of them, and says whose they are. A request that fails is asked again (`retries.asked`); since a server that was away
    may have come back with other weights, the whole call then counts as lost, and is made again with the weights given anew.
    """

    model: str
    url: str = LOOPBACK
    key_env: str = ""
    timeout: float = 600.0
    attempts: int = 8
    concurrency: int = 64
    load_by: str = "reload"
    transport: httpx.BaseTransport | None = field(default=None, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def __post_init__(self) -> None:
        check_address(self.url, "engine.url")
        if "${" in self.url:
            raise UserError("an address has no variables here", where="engine.url", fix="send the key by `key_env: NAME`")
        for name in ("timeout", "attempts", "concurrency"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}", where=f"engine.{name}", fix="use a number above 0")
        self._trouble = ""

    @property
    def name(self) -> str:
        return f"the server at {self.url}"

    @property
    def holds(self) -> str:
        try:
            owner, _, version = self._note.read_text().partition(" ")
        except FileNotFoundError:
            return ""
        return version if owner == this_process() else ""

    @cached_property
    def _note(self) -> Path:
        folder = user_cache() / "engines"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{digest(self._root.replace('//localhost', '//127.0.0.1'))}.txt"

    @property
    def _root(self) -> str:
        """The address of the server itself, whose own routes lie beside /v1."""
        parts = urlsplit(self.url)
        return parts._replace(path=parts.path.rstrip("/").removesuffix("/v1"), query="").geturl()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._note.with_suffix(".lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.info("waiting for %s: another arm samples", self.name)
                fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def load(self, folder: Path, version: str) -> None:
        self.restart()
        if self.load_by == "reload":
            told = {"method": "reload_weights", "kwargs": {"weights_path": str(folder)}}
            with self._client() as client:
                self._patiently(partial(self._post, client, joined(self._root, "collective_rpc"), told))
                self._patiently(partial(self._reset, client))
        if self._trouble:
            raise EngineDied(self._trouble)
        self._note.write_text(f"{this_process()} {version}")

    def _reset(self, client: httpx.Client) -> None:
        """Empties the cache of prefixes, which keeps what running requests use: then the server is busy."""
        said = self._post(client, joined(self._root, "reset_prefix_cache"), {})
        if b'"success":false' in said.replace(b" ", b""):
            raise Busy("its prefix cache is in use by other requests")

    def restart(self) -> None:
        """Forgets what it was given; who starts a server again is its owner, and the next request waits for that."""
        self._note.unlink(missing_ok=True)
        self._trouble = ""

    def answers(
        self, prompts: Sequence[Sequence[int]], rows: Sequence[DecodeRow], stop_ids: Sequence[int], done: Callable[[int], None]
    ) -> list[EngineAnswer]:
        found: list[EngineAnswer] = []
        with self._client() as client, ThreadPoolExecutor(self.concurrency) as pool:
            try:
                for answer in pool.map(lambda row: self._answer(client, prompts[row.prompt], row, stop_ids), rows):
                    found.append(answer)
                    done(len(found))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if self._trouble:
            raise EngineDied(self._trouble)
        return found

    def _answer(self, client: httpx.Client, prompt: Sequence[int], row: DecodeRow, stop_ids: Sequence[int]) -> EngineAnswer:
        body, address = self._body(prompt, row, stop_ids), joined(self.url, "completions")

        def once() -> EngineAnswer:
            return parsed(self._post(client, address, body), prompt, self.url, greedy=row.sampling.temperature == 0)

        return self._patiently(once)

    def _body(self, prompt: Sequence[int], row: DecodeRow, stop_ids: Sequence[int]) -> dict[str, Any]:
        named = {"model": self._served(), "prompt": list(prompt), "return_token_ids": True}
        return {**named, **vllm_parameters(row, stop_ids)}

    def _served(self) -> str:
        """The name of what answers."""
        return self.model

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        try:
            return asked(ask, attempts=self.attempts, sleep=self.sleep)
        except Busy as busy:
            raise EngineDied(f"no answer after {self.attempts} attempts: {self._hidden(str(busy))}") from None
        except Odd as odd:
            raise UserError(
                f"what came back is no completion: {self._hidden(str(odd))}", where=self.url,
                fix="use a server with OpenAI's /completions; the address usually ends in /v1",
            ) from None  # fmt: skip

    def _post(
        self, client: httpx.Client, address: str, body: Mapping[str, Any], *, takes: Sequence[int] = (200, 204),
        refuses: Sequence[int] = (),
    ) -> bytes:  # fmt: skip
        """What it says with a status of `takes`. Raises: Busy where it is worth asking again, UserError where it refuses, by a
        status of `refuses` or any other."""
        import httpx

        try:
            response = client.post(address, json=body)
        except httpx.TransportError as error:
            self._trouble = self._hidden(f"{type(error).__name__}: {error}")
            raise Busy(self._trouble) from None
        except (httpx.RequestError, httpx.StreamError) as error:  # what it sent is not packed as it says
            raise Odd(f"{type(error).__name__}: {error}") from None
        if (status := response.status_code) in refuses:
            raise self._refused(address, status, response.text)
        if status >= 500:
            self._trouble = f"HTTP {status}"
        check_busy(status, response.headers.get("retry-after"))
        if status not in takes:
            raise self._refused(address, status, response.text)
        return response.content

    def _refused(self, address: str, status: int, said: str) -> Exception:
        return UserError(f"HTTP {status}: {self._hidden(said)[:300]}", where=address, fix=self._fix(address, status))

    def _fix(self, address: str, status: int) -> str:
        """What to do where `address` is refused."""
        if status == 404 and not address.endswith("/completions"):
            return (
                "start vLLM's server with VLLM_SERVER_DEV_MODE=1 in its environment, on an address that only you reach; "
                "for a server whose weights never change, set `engine: {load_by: nothing}`"
            )
        return "check the model's name, the address (it usually ends in /v1) and the key"

    def _client(self) -> httpx.Client:
        import httpx

        key = named_key(self.key_env)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=self.concurrency)
        return httpx.Client(timeout=self.timeout, headers=headers, limits=limits, transport=self.transport)

    def _hidden(self, text: str) -> str:
        return hidden(text, [named_key(self.key_env)])


def parsed(body: bytes, prompt: Sequence[int], where: str, *, greedy: bool) -> EngineAnswer:
    """The answer in a completion's body; what it says of usage is not read. Of a `greedy` answer the log-probs are 0, those of a
    point mass. Raises: Odd for what is no completion, UserError for tokens that are none."""
    try:
        choice = json.loads(body)["choices"][0]
        finish = _FINISH[choice["finish_reason"]]
        tokens = choice.get("token_ids")
        if tokens is None:
            return EngineAnswer(finish=finish, text=_text(choice["text"]))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise Odd(f"{type(error).__name__}: {error}: {body[:200].decode('utf-8', 'replace')!r}") from None
    if (problem := _problem(choice, tokens, prompt)) is not None:
        fix = "use a server that answers as vLLM 0.32 does; see docs/engines.md"
        raise UserError(problem, where=where, why="what is learned from has to be what was sampled", fix=fix)
    logp = choice["logprobs"]["token_logprobs"]
    return EngineAnswer(finish=finish, tokens=tuple(tokens), logp=tuple(0.0 if greedy else min(float(v), 0.0) for v in logp))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"the text is {value!r:.60}")
    return value


def _problem(choice: Mapping[str, Any], tokens: Any, prompt: Sequence[int]) -> str | None:
    """Why the tokens of a choice cannot be used."""
    if not isinstance(tokens, list) or not tokens or not all(type(t) is int and t >= 0 for t in tokens):
        return f"the token ids are {tokens!r:.80}"
    logprobs = choice.get("logprobs")
    logp = logprobs.get("token_logprobs") if isinstance(logprobs, Mapping) else None
    if not isinstance(logp, list) or len(logp) != len(tokens):
        return f"{len(tokens)} token ids and {len(logp) if isinstance(logp, list) else 'no'} log-probs came back"
    if not all(type(v) in (int, float) and -1e9 < v <= 0.01 for v in logp):
        return f"the log-probs are {logp!r:.80}"
    if (seen := choice.get("prompt_token_ids")) is not None and seen != list(prompt):
        return f"the prompt that was answered, {seen!r:.80}, is not the one that was asked, {list(prompt)!r:.80}"
    return None
