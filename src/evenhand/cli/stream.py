"""Answers piece by piece, as they are sampled: for a person to read, not for data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from evenhand.seeding import keyed

if TYPE_CHECKING:
    from evenhand.data.template import Renderer
    from evenhand.types import Message, Prompt, Sampling


@dataclass
class Speaker:
    """Tells an answer's text as soon as it is complete; `stream` gives the tokens (`LocalEngine.stream`).

    Without a chat template the turns are joined as plain text. Every answer has random numbers of its own, keyed by
    (sampling.seed, how many were given before).
    """

    stream: Callable[[Prompt, Sampling], Iterator[int]]
    renderer: Renderer
    sampling: Sampling
    answers: int = 0

    def say(self, history: Sequence[Message], tell: Callable[[str], None]) -> str:
        """The answer to `history`; `tell` gets its pieces."""
        sampling = replace(self.sampling, seed=keyed(self.sampling.seed, "chat", self.answers))
        self.answers += 1
        ids, told = [], ""
        for token in self.stream(self._prompt(history), sampling):
            ids.append(token)
            text = self.renderer.decode(ids)
            if not text.endswith("�"):  # half a character: its other bytes are still to come
                tell(text[len(told) :])
                told = text
        return told

    def _prompt(self, history: Sequence[Message]) -> Prompt:
        from evenhand.types import Prompt

        chat = self.renderer.tokenizer.chat_template
        return Prompt(content=tuple(history) if chat else "".join(m.content for m in history))
