"""A reward behind an HTTP endpoint: a server that anybody can write in a few lines scores the answers to a prompt.

`POST url` with `{"prompt": [{"role", "content"}, ...], "completions": [TEXT, ...]}` (a verbatim prompt is a text), and the
columns that are asked for under `"meta"`; the answer is `{"rewards": [NUMBER or null, ...]}`, one for each completion in
their order, null where there is none. A training run is exact again after a stop only if the server answers the same question
the same way.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from evenhand.display import hidden
from evenhand.errors import UserError
from evenhand.judges.address import check_address, named_key
from evenhand.judges.retries import Busy, asked, check_busy
from evenhand.types import Group, Scores

if TYPE_CHECKING:
    import httpx


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteReward:
    """Scores of a server at `url`; one request per group, `concurrency` of them at a time.

    `columns` of the data go along. The key is read from the environment variable `key_env` and sent as a bearer token. A server
    that is busy or cannot be reached is asked `attempts` times, 1, 2, 4, ... seconds apart or when it says (`retries.asked`).
    Raises: UserError where it does not answer, refuses, or answers anything but a number or null for each completion.
    """

    url: str
    columns: tuple[str, ...] = ()
    key_env: str = ""
    timeout: float = 60.0
    attempts: int = 6
    concurrency: int = 8
    transport: httpx.BaseTransport | None = field(default=None, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def __post_init__(self) -> None:
        check_address(self.url, "reward.url")
        if "${" in self.url:
            raise UserError("an address has no variables here", where="reward.url", fix="send the key by `key_env: NAME`")
        for name in ("timeout", "attempts", "concurrency"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}", where=f"reward.{name}", fix="use a number above 0")

    @property
    def name(self) -> str:
        return "endpoint"

    def __call__(self, groups: Sequence[Group]) -> list[Scores]:
        import httpx

        key = named_key(self.key_env)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        with (
            httpx.Client(timeout=self.timeout, headers=headers, transport=self.transport) as client,
            ThreadPoolExecutor(self.concurrency) as pool,
        ):
            return list(pool.map(partial(self._scored, client), groups))

    def _scored(self, client: httpx.Client, group: Group) -> Scores:
        body = question(group, self.columns)
        try:
            return asked(partial(self._post, client, body, len(group.completions)), attempts=self.attempts, sleep=self.sleep)
        except Busy as busy:
            last = str(busy)
        fix = "check that the server runs and is not overloaded, then run again; or lower `concurrency`"
        raise UserError(
            f"no answer after {self.attempts} attempts: {hidden(last, [named_key(self.key_env)])}", where=self.url, fix=fix
        )

    def _post(self, client: httpx.Client, body: dict[str, Any], expected: int) -> Scores:
        import httpx

        try:
            response = client.post(self.url, json=body)
        except httpx.HTTPError as error:
            raise Busy(f"{type(error).__name__}: {error}") from None
        check_busy(response.status_code, response.headers.get("retry-after"))
        said = hidden(response.text, [named_key(self.key_env)])
        if response.status_code != 200:
            raise UserError(f"HTTP {response.status_code}: {said[:300]}", where=self.url, fix="check the address and the key")
        return Scores(rewards_in(said, expected, self.url))


def question(group: Group, columns: Sequence[str]) -> dict[str, Any]:
    """What is sent for a group. Raises: UserError where the data lack a column.

    >>> from evenhand.types import Completion, Prompt
    >>> question(Group(prompt=Prompt(content="2+2", meta={"answer": 4}), completions=(Completion(content="4"),)), ["answer"])
    {'prompt': '2+2', 'completions': ['4'], 'meta': {'answer': 4}}
    """
    content = group.prompt.content
    prompt = content if isinstance(content, str) else [{"role": m.role, "content": m.content} for m in content]
    if absent := [name for name in columns if name not in group.prompt.meta]:
        fix = f"keep it with the prompts: `keep: [{absent[0]}]` beside their source"
        raise UserError(f"the prompts have no column '{absent[0]}'", where="reward.columns", fix=fix)
    meta = {"meta": {name: group.prompt.meta[name] for name in columns}} if columns else {}
    return {"prompt": prompt, "completions": [c.text for c in group.completions], **meta}


def rewards_in(text: str, expected: int, url: str) -> tuple[float, ...]:
    """The rewards of a server's answer, NaN for null.

    >>> rewards_in('{"rewards": [1, null]}', 2, "http://host")
    (1.0, nan)
    """
    try:
        found = json.loads(text)["rewards"]
        values = tuple(math.nan if v is None else float(v) for v in found if v is None or type(v) in (int, float))
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        values = ()
    if len(values) != expected or any(math.isinf(v) for v in values):
        why = f'it must be {{"rewards": [...]}} with {expected} numbers, null where there is none'
        raise UserError(f"the answer is {text[:200]!r}", where=url, why=why, fix="mend the server")
    return values
