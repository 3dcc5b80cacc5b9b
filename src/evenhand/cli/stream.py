"""Answers piece by piece, as they are sampled: for a person to read, not for data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from evenhand.data.template import Renderer
    from evenhand.types import Message


class Speaker:
    """Samples one token at a time with the model's own cache, and tells text as soon as it is complete.

    Prompts are rendered by the same `Renderer` as in training. Without a chat template the turns are joined as plain text.
    """

    def __init__(self, hf: Any, renderer: Renderer, *, temperature: float, top_p: float, max_tokens: int) -> None:
        self.hf, self.renderer = hf, renderer
        self.temperature, self.top_p, self.max_tokens = temperature, top_p, max_tokens

    def say(self, history: Sequence[Message], tell: Callable[[str], None]) -> str:
        """The answer to `history`; `tell` gets its pieces."""
        ids, told = [], ""
        for token in self._tokens(self._prompt(history)):
            ids.append(token)
            text = self.renderer.decode(ids)
            if not text.endswith("�"):  # half a character: its other bytes are still to come
                tell(text[len(told) :])
                told = text
        return told

    def _prompt(self, history: Sequence[Message]) -> list[int]:
        from evenhand.types import Prompt

        chat = self.renderer.tokenizer.chat_template
        content = tuple(history) if chat else "".join(m.content for m in history)
        return list(self.renderer.prompt_ids(Prompt(content=content)))

    @torch.inference_mode()
    def _tokens(self, prompt: Sequence[int]) -> Iterator[int]:
        ids = torch.tensor([prompt], device=self.hf.device)
        cache = None
        for _ in range(self.max_tokens):
            out = self.hf(input_ids=ids, past_key_values=cache, use_cache=True)
            token = self._choose(out.logits[0, -1].float())
            if token in self.renderer.stop_ids:
                return
            yield token
            cache, ids = out.past_key_values, torch.tensor([[token]], device=self.hf.device)

    def _choose(self, logits: torch.Tensor) -> int:
        """Nucleus sampling at a temperature; 0 is greedy."""
        if self.temperature == 0:
            return int(logits.argmax())
        probs, order = torch.softmax(logits / self.temperature, -1).sort(descending=True)
        probs = torch.where(probs.cumsum(-1) - probs < self.top_p, probs, 0.0)
        return int(order[torch.multinomial(probs, 1)])
