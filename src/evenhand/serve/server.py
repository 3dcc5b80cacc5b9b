"""Serves one page on this machine's loopback address until it is stopped."""

from __future__ import annotations

import errno
import getpass
import importlib.util
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from evenhand.errors import UserError
from evenhand.serve.guard import App, Guard

ADDRESS = "127.0.0.1"
Said = Callable[[str], None]


def check_installed() -> None:
    """Raises: UserError where the packages of the extra `serve` are missing."""
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"a page needs {' and '.join(missing)}", why="not installed", fix="pip install 'evenhand[serve]'")


def serve(app: App, policy: str, *, port: int = 0, say: Said = print) -> None:
    """Serves `app` behind a fresh token until Ctrl-C; `port` 0 takes a free one. `say` is told the address, and how to reach it.

    Raises: UserError where the port is taken.
    """
    import uvicorn

    token = secrets.token_urlsafe(18)
    with listening(port) as listener:
        number = listener.getsockname()[1]
        for line in lines(number, token):
            say(line)
        settings = uvicorn.Config(
            Guard(app, token, policy), log_level="warning", access_log=False, lifespan="off", server_header=False, ws="none"
        )
        try:
            uvicorn.Server(settings).run(sockets=[listener])
        except KeyboardInterrupt:  # uvicorn has ended what was under way and passes the signal on
            say("stopped")


def lines(port: int, token: str) -> list[str]:
    """What a person needs: the address, and a tunnel for a browser on another machine."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as containers have
        user = "USER"
    return [
        f"open: http://{ADDRESS}:{port}/{token}/",
        f"from another machine, first: ssh -N -L {port}:{ADDRESS}:{port} {user}@{socket.gethostname()}",
        "Ctrl-C ends it.",
    ]


@contextmanager
def listening(port: int) -> Iterator[socket.socket]:
    """A socket that is bound to loopback."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((ADDRESS, port))
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
            raise UserError(f"port {port} cannot be used", where="--port", why=str(error.strerror), fix="leave it out") from None
        yield listener
