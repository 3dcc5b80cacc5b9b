"""Where tasks of a cluster say how far they are: an actor beside the scheduler, and a task's way to it. Quickly imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from evenhand.runner.worker_protocol import Message


class Listener:
    """An actor of the cluster: what running tasks say, until the scheduler asks."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Message]] = []

    def tell(self, name: str, message: Message) -> None:
        self.heard.append((name, message))

    def drain(self) -> list[tuple[str, Message]]:
        found, self.heard = self.heard, []
        return found


@dataclass(frozen=True, slots=True)
class ToListener:
    """A task's end of what leads to the scheduler."""

    listener: Any
    name: str

    def send(self, message: Message, /) -> None:
        self.listener.tell.remote(self.name, message)

    def close(self) -> None: ...
