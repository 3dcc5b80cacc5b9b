"""A page served in a thread, for tests in a browser."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from evenhand.serve.guard import Guard
from evenhand.serve.server import listening

TOKEN = "token"


@contextmanager
def serving(app: Any, policy: str) -> Iterator[str]:
    """The address of `app` while it is served behind its guard."""
    import uvicorn

    with listening(0) as listener:
        settings = uvicorn.Config(Guard(app, TOKEN, policy), log_level="error", lifespan="off", ws="none")
        server = uvicorn.Server(settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/{TOKEN}/"
        finally:
            server.should_exit = True
            thread.join()
