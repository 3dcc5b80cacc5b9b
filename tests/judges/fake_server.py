"""An OpenAI-compatible server inside the test: answers by a function, counts what it was asked."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable

import httpx

from evenhand.judges import Comparison
from evenhand.types import Completion, Prompt

ANSWERS = re.compile(r"<answer A>\n(.*)\n</answer A>.*<answer B>\n(.*)\n</answer B>", re.DOTALL)


class FakeServer:
    """`answer(first, second, body)` gives the judge's words, a dict (the JSON body), an httpx.Response or an exception."""

    def __init__(self, answer: Callable) -> None:
        self.answer, self.bodies, self.headers = answer, [], []
        self._lock = threading.Lock()
        self.transport = httpx.MockTransport(self._handle)

    @property
    def calls(self) -> int:
        return len(self.bodies)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        with self._lock:
            self.bodies.append(body)
            self.headers.append(dict(request.headers))
        found = ANSWERS.search(body["messages"][-1]["content"])
        said = self.answer(*(found.groups() if found else (None, None)), body)
        if isinstance(said, Exception):
            raise said
        if isinstance(said, httpx.Response):
            return said
        return httpx.Response(200, json=said if isinstance(said, dict) else completion(said))


def completion(text, finish="stop", prompt_tokens=100, completion_tokens=10, logprobs=None):
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens}
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"choices": [choice | ({"logprobs": {"content": logprobs}} if logprobs else {})], "usage": usage}


def longer(first, second, body):
    """A judge that likes length."""
    return f"Comparison: one is longer.\nPreferred: {'A' if len(first) > len(second) else 'B'}"


def pair(question, a, b):
    return Comparison(prompt=Prompt(content=question), a=Completion(content=a), b=Completion(content=b))
