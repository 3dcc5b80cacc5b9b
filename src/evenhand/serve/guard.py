"""What stands before every page: who may ask, and what the browser is told never to do."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
LARGEST = 64 * 1024
"""Bytes of a request's body."""
_HEADERS = {
    "x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store", "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin", "cross-origin-resource-policy": "same-origin",
}  # fmt: skip


def content_policy(script: str) -> str:
    """Only this very script runs, and it speaks with this server alone; styles stay open because SVG needs style attributes."""
    return (
        f"default-src 'none'; {own_script(script)}; style-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'"
    )


def own_script(script: str) -> str:
    """The directive that lets this very script run and no other."""
    return f"script-src 'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


class Guard:
    """Passes on to `app` what comes from this machine with the token as the first part of its path: /TOKEN/...

    Refused are other hosts' names (a page elsewhere that lets its name point here), requests that a page of another origin sent,
    and long bodies. Through a tunnel the port may be another one, the name is not.
    """

    def __init__(self, app: App, token: str, policy: str) -> None:
        self.app, self.token, self.policy = app, token, policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refused = self._refused(scope)
        if refused is not None:
            await _say(self._armed(send), *refused)
            return
        if scope["path"] == f"/{self.token}":  # without the slash, addresses of the page would miss the token
            await _say(self._armed(send), 307, "", {"location": f"/{self.token}/"})
            return
        await self.app({**scope, "root_path": f"/{self.token}"}, receive, self._armed(send))

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        if _name(host) not in LOOPBACK:
            return 421, "This page answers under 127.0.0.1 and localhost only."
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return 403, "This page takes nothing from other pages."
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > LARGEST or "transfer-encoding" in headers:
            return 413, "That is too much for one answer."
        first = scope["path"].split("/")[1] if "/" in scope["path"] else ""
        if not secrets.compare_digest(first.encode("utf-8", "surrogatepass"), self.token.encode()):
            return 403, "The address needs its token: copy it whole from the terminal."
        return None

    def _armed(self, send: Send) -> Send:
        """The answer with the headers that every page has."""
        more = [(k.encode(), v.encode()) for k, v in {**_HEADERS, "content-security-policy": self.policy}.items()]

        async def armed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        return armed


def _name(host: str) -> str:
    """A host without its port."""
    return host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0].lower()


async def _say(send: Send, status: int, text: str, headers: dict[str, str] | None = None) -> None:
    sent = {"content-type": "text/plain; charset=utf-8", **(headers or {})}
    rows = [(k.encode(), v.encode()) for k, v in sent.items()]
    await send({"type": "http.response.start", "status": status, "headers": rows})
    await send({"type": "http.response.body", "body": text.encode()})
