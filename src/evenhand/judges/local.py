"""A model on this machine as a judge: the same questions, answered by the sampler the policies use."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from evenhand.engines.registry import DEFAULT, decides, open_engine
from evenhand.errors import UserError
from evenhand.judges.chat import TOO_LONG, ChatReply, Request, Usage
from evenhand.types import Completion, Finish, Group, Head, Message, Prompt, Sampling

if TYPE_CHECKING:
    from evenhand.data.template import Renderer
    from evenhand.models.policy import Policy
    from evenhand.protocols import Engine

AT_ONCE = 64
"""Questions per call of the sampler: what is kept when a run is stopped comes in portions of this size."""


class LocalChat:
    """Answers with `policy`. Log-probs are exact: each label's text is scored as the continuation of the question.

    `weights` is a fingerprint of the model's files: answers of a folder that was written anew are not taken for its own.
    `engine` is what samples. With a tokenizer that has no chat template the messages' texts are joined and continued.
    """

    def __init__(
        self, policy: Policy, renderer: Renderer, *, name: str, weights: str = "", engine: str | Mapping[str, Any] = DEFAULT,
        tokens_per_microbatch: int = 8192,
    ) -> None:  # fmt: skip
        self.policy, self.renderer, self.name, self.weights = policy, renderer, name, weights
        self._engine, self._tokens = engine, tokens_per_microbatch

    @cached_property
    def engine(self) -> Engine:
        return open_engine(self._engine, self.policy, self.renderer)

    @property
    def identity(self) -> Mapping[str, Any]:
        precision = str(next(self.policy.parameters()).dtype)
        by = {} if (engine := decides(self._engine)) == DEFAULT else {"engine": engine}
        return {"model": self.name, "weights": self.weights, "precision": precision, "template": self.renderer.fingerprint, **by}

    @property
    def device(self) -> str:
        """Where its seconds are spent."""
        return str(self.policy.device)

    def cost(self, reply: ChatReply) -> float | None:
        return 0.0

    def complete(self, requests: Sequence[Request]) -> Iterator[tuple[int, ChatReply]]:
        """See `Chat.complete`. A question that does not fit into the model's window is answered by saying so."""
        notes = [self._too_long(r) for r in requests]
        yield from ((i, ChatReply(text="", finish=TOO_LONG, note=note)) for i, note in enumerate(notes) if note)
        scored = [i for i, r in enumerate(requests) if r.logprobs and not notes[i]]
        sampled = [i for i, r in enumerate(requests) if not r.logprobs and not notes[i]]
        for part in _portions(scored):
            yield from zip(part, _timed(self._score, [requests[i] for i in part]), strict=True)
        for alike in _alike(requests, sampled):
            for part in _portions(alike):
                yield from zip(part, _timed(self._sample, [requests[i] for i in part]), strict=True)

    def _too_long(self, request: Request) -> str:
        window = getattr(self.policy.hf.config.get_text_config(), "max_position_embeddings", None)
        if window is None:
            return ""
        length = len(self.renderer.prompt_ids(asked(request.messages, self.renderer)))
        new = max(map(len, self._spelt(request.labels).values())) if request.logprobs else request.max_tokens
        if length + new <= window:
            return ""
        return f"too long for the judge: {new} tokens behind long answers do not fit its window of {window}"

    def _prompts(self, requests: Sequence[Request]) -> list[Prompt]:
        return [asked(r.messages, self.renderer) for r in requests]

    def _sample(self, requests: Sequence[Request]) -> list[ChatReply]:
        first = requests[0]
        sampling = Sampling(temperature=first.temperature, max_tokens=first.max_tokens, seed=first.attempt)
        groups = self.engine.generate(self._prompts(requests), 1, sampling)
        return [self._reply(g) for g in groups]

    def _reply(self, group: Group) -> ChatReply:
        answer = group.completions[0]
        usage = Usage(prompt=len(self.renderer.prompt_ids(group.prompt)), completion=len(answer.tokens or ()))
        return ChatReply(text=answer.text, finish="length" if answer.finish is Finish.LENGTH else "stop", usage=usage)

    def _score(self, requests: Sequence[Request]) -> list[ChatReply]:
        from evenhand.train.examples import Example
        from evenhand.train.logprobs import read

        spelt = self._spelt(requests[0].labels) if requests else {}
        answers = tuple(Completion(content=label, tokens=ids) for label, ids in spelt.items())
        groups = [Group(prompt=p, completions=answers) for p in self._prompts(requests)]
        items = [Example(tokens=self.renderer.tokenise(g, max_prompt=None, max_completion=None)) for g in groups]
        logp = frozenset({Head.LOGP})
        rows = read(self.policy, items, logp, tokens_per_microbatch=self._tokens, temperature=1.0, device=self.policy.device)[
            Head.LOGP
        ]
        found = []
        for item, row in zip(items, rows, strict=True):
            top = {label: float(r.sum()) for label, r in zip(spelt, row, strict=True)}
            best = max(top, key=lambda label: top[label])
            usage = Usage(prompt=len(item.tokens.prompt), completion=sum(len(c.ids) for c in item.tokens.completions))
            found.append(ChatReply(text=best, tokens=((best, top),), usage=usage))
        return found

    def _spelt(self, labels: Sequence[str]) -> dict[str, tuple[int, ...]]:
        """The ids of each label this tokenizer can spell, each token once: " A" and "A" may be the same."""
        tokenizer = self.renderer.tokenizer
        found: dict[tuple[int, ...], str] = {}
        for label in labels:
            ids = tuple(tokenizer.encode(label, add_special_tokens=False))
            if tokenizer.decode(ids).strip() == label.strip():
                found.setdefault(ids, label)
        if len({label.strip() for label in found.values()}) < 2:
            raise UserError(
                "the tokenizer cannot spell the verdict's labels",
                where=f"judge {self.name}",
                fix="use a template whose labels are words of this model",
            )
        return {label: ids for ids, label in found.items()}


def _timed(answer: Callable[[Sequence[Request]], list[ChatReply]], requests: Sequence[Request]) -> list[ChatReply]:
    """The replies with their share of the seconds; texts and numbers are read out inside, so that a GPU is waited for."""
    start = time.perf_counter()
    replies = answer(requests)
    each = (time.perf_counter() - start) / max(len(replies), 1)
    return [replace(r, seconds=each) for r in replies]


def asked(messages: tuple[Message, ...], renderer: Renderer) -> Prompt:
    """Messages as a prompt: by the tokenizer's chat template, or, where it has none, their texts joined."""
    if renderer.tokenizer.chat_template:
        return Prompt(content=messages)
    return Prompt(content="\n\n".join(m.content for m in messages))


def _portions(indices: Sequence[int]) -> list[Sequence[int]]:
    return [indices[i : i + AT_ONCE] for i in range(0, len(indices), AT_ONCE)]


def _alike(requests: Sequence[Request], indices: Sequence[int]) -> list[list[int]]:
    """Indices grouped by what the sampler needs to know."""
    groups: dict[tuple[float, int, int], list[int]] = {}
    for i in indices:
        r = requests[i]
        groups.setdefault((r.temperature, r.max_tokens, r.attempt), []).append(i)
    return list(groups.values())
