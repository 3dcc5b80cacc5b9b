"""Groups to token ids and back: the one place where text is rendered, tokenised, cut and masked.

A conversation is rendered once, prompt and answer together, and tokenised once; the prompt's own ids must be its prefix.
Text prompts are used verbatim. Which tokens count is known from lengths, so a pad token can never hide a stop token.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from evenhand.data.chat_templates import TEMPLATES, with_template
from evenhand.data.encode import Encoder, fingerprint, generation_stops
from evenhand.data.turns import assistant_mask
from evenhand.errors import UserError, did_you_mean
from evenhand.types import Completion, Content, Finish, Group, Message, Prompt, TokenGroup, Tokens

Supervise = Literal["completion", "assistant", "full"]
"""Which tokens of a conversation are learned.

completion: what the assistant writes after the prompt. assistant: every assistant turn; the prompt then ends before the
first of them. full: everything but the first token, which becomes the prompt (language modelling).
"""
SUPERVISE = ("completion", "assistant", "full")
_MARK = "evenhandmark"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tokenised:
    """What `Renderer.tokenise_all` returns.

    `groups` in order; `dropped` (index, reason) of those without a supervised token; `counts` of what was noteworthy:
    prompts_cut, completions_cut, pairs_identical_after_cut, boundary_merged (prompt and completion tokenised apart).
    """

    groups: tuple[TokenGroup, ...]
    dropped: tuple[tuple[int, str], ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Answer:
    """One completion as text: `text` = rendered prompt + answer. `messages`: the whole conversation if its turns alternate."""

    text: str
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class _Rendered:
    """A group as text: `prompt`, whether it is a conversation, and its answers; sampled ones stay as they are."""

    prompt: str
    chat: bool
    answers: tuple[_Answer | Completion, ...]


class Renderer:
    """Renders and tokenises groups for one tokenizer and one chat template.

    `template` names one of `chat_templates.TEMPLATES` for a tokenizer without a template of its own; `options` are handed
    to the template (`enable_thinking: false`). `tokenizer` is then the tokenizer to save beside a model, template included.
    `stop_ids` is the union of the tokenizer's eos, the generation config's eos list, the template's terminator and
    `extra_stops`; `stop_id` is the one that ends a completion taken from data.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: str | None = None,
        options: Mapping[str, Any] | None = None,
        extra_stops: Iterable[int] = (),
    ) -> None:
        self.tokenizer = with_template(tokenizer, template) if template else tokenizer
        self._options = dict(options or {})
        self._encoder = Encoder(self.tokenizer)
        self._closing, self._tail, terminator = self._probe() if self.tokenizer.chat_template else ("", "", None)
        eos = self.tokenizer.eos_token_id
        found = {eos, terminator, *generation_stops(tokenizer), *extra_stops} - {None}
        self.stop_ids: frozenset[int] = frozenset(found)
        self._text_stop: int | None = eos if eos is not None else terminator
        self._chat_stop: int | None = terminator if terminator is not None else eos
        pad = self.tokenizer.pad_token_id
        self.pad_id: int = pad if pad is not None else (eos if eos is not None else 0)
        self._said_merged = False

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with the tokenizer, the template, its options or the stop ids."""
        return fingerprint(self.tokenizer, self._options, sorted(self.stop_ids))

    @property
    def stop_id(self) -> int | None:
        """The stop token that ends an answer of a conversation (of verbatim text: the tokenizer's eos)."""
        return self._chat_stop

    def prompt_text(self, prompt: Prompt) -> str:
        """The rendered prompt, exactly as the model sees it (a bos token that the tokenizer adds is not shown)."""
        return self._render_prompt(prompt.content, prompt.id)

    def prompt_ids(self, prompt: Prompt, max_prompt: int | None = None) -> tuple[int, ...]:
        """The ids that an answer continues; with `max_prompt`, the last so many of them."""
        text = self._render_prompt(prompt.content, prompt.id)
        ids = self._with_bos(text, self._encoder.encode([text])[text], chat=not isinstance(prompt.content, str))
        if not ids:
            raise UserError("the prompt has no tokens", where=f"prompt {prompt.id}", fix="give a prompt of one word or more")
        return _keep_end(ids, max_prompt)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a completion: up to its first stop token, special tokens removed, a leading blank kept."""
        end = next((i for i, token in enumerate(ids) if token in self.stop_ids), len(ids))
        return self._encoder.decode(ids[:end])

    def tokenise(
        self, group: Group, *, max_prompt: int | None, max_completion: int | None, supervise: Supervise = "completion"
    ) -> TokenGroup:
        """One group as tokens; see `tokenise_all`. Raises UserError when a completion has no supervised token."""
        result = self.tokenise_all([group], max_prompt=max_prompt, max_completion=max_completion, supervise=supervise)
        if result.dropped:
            raise UserError(result.dropped[0][1], where=f"prompt {group.prompt.id}", fix="raise max_completion, or drop the row")
        return result.groups[0]

    def tokenise_all(
        self,
        groups: Sequence[Group],
        *,
        max_prompt: int | None,
        max_completion: int | None,
        supervise: Supervise = "completion",
    ) -> Tokenised:
        """Groups as tokens, tokenised in one batch.

        The prompt keeps its last `max_prompt` tokens, a completion its first `max_completion`. A completion from data
        ends with exactly one stop token, which counts; one that was cut has none and is marked `truncated`. Sampled
        `tokens` are used as they are. A group with a completion without any supervised token is dropped and counted.
        """
        if supervise not in SUPERVISE:
            raise UserError(f"unknown value '{supervise}'", where="supervise", fix=did_you_mean(supervise, SUPERVISE))
        rendered = [self._render(group, supervise) for group in groups]
        ids = self._encoder.encode(text for r in rendered for text in _texts(r))
        counts: Counter[str] = Counter()
        kept: list[TokenGroup] = []
        dropped: list[tuple[int, str]] = []
        for index, (group, r) in enumerate(zip(groups, rendered, strict=True)):
            done = self._assemble(group, r, ids, counts, max_prompt, max_completion, supervise)
            empty = [i for i, c in enumerate(done.completions) if not any(c.mask)]
            if empty:
                dropped.append((index, f"completion {empty[0]} has no supervised token after truncation"))
            else:
                kept.append(done)
        return Tokenised(tuple(kept), tuple(dropped), dict(counts))

    # rendering ------------------------------------------------------------------------------------------------------

    def _render(self, group: Group, supervise: Supervise) -> _Rendered:
        """The texts of a group. `assistant` moves everything from the first assistant turn on into the completions."""
        content, moved = group.prompt.content, ()
        sampled = any(c.tokens is not None for c in group.completions)
        if supervise == "assistant" and not sampled and not isinstance(content, str):
            first = next((i for i, m in enumerate(content) if m.role == "assistant"), len(content))
            content, moved = content[:first], content[first:]
        prompt = self._render_prompt(content, group.prompt.id)
        if not group.completions:
            raise UserError("the prompt has no completion", where=f"prompt {group.prompt.id}", fix="use prompt_ids for prompts")
        answers = tuple(
            c if c.tokens is not None else self._render_answer(content, prompt, moved, c, group.prompt.id)
            for c in group.completions
        )
        return _Rendered(prompt, not isinstance(content, str), answers)

    def _render_prompt(self, content: Content, name: str) -> str:
        return content if isinstance(content, str) else self._chat(content, name, add_generation_prompt=True)

    def _render_answer(self, content: Content, prompt: str, moved: tuple, completion: Completion, name: str) -> _Answer:
        turns = completion.content
        if isinstance(content, str):
            if not isinstance(turns, str) and len(turns) != 1:
                raise UserError("a conversation cannot continue a text prompt", where=f"prompt {name}")
            return _Answer(prompt + (turns if isinstance(turns, str) else turns[0].content))
        turns = (*moved, *((Message("assistant", turns),) if isinstance(turns, str) else turns))
        whole = self._closed((*content, *turns), name)
        several = len(turns) > 1 or turns[0].role != "assistant"
        if whole.startswith(prompt):
            return _Answer(whole, (*content, *turns) if several else ())
        if several:
            raise UserError(
                "the chat template rewrites earlier turns, so the prompt is not a prefix of the conversation",
                where=f"prompt {name}",
                fix="use supervise: completion with one answer per row, or a template that keeps turns as they are",
            )
        return _Answer(prompt + turns[0].content + self._closing)  # e.g. a generation prompt that opens a thinking block

    def _closed(self, messages: Sequence[Message], name: str) -> str:
        """A conversation rendered up to the terminator of its last turn; what a template writes after that is no one's."""
        text = self._chat(messages, name, add_generation_prompt=False)
        return text[: len(text) - len(self._tail)] if self._tail and text.endswith(self._closing + self._tail) else text

    def _chat(self, messages: Sequence[Message], name: str, *, add_generation_prompt: bool) -> str:
        if not self.tokenizer.chat_template:
            raise UserError(
                "the data are conversations, but the tokenizer has no chat template",
                where=f"prompt {name}",
                why="the turns would have to be joined in a way the model was not trained for",
                fix=f"choose one by name: template: {' | '.join(TEMPLATES)}",
            )
        plain = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return self.tokenizer.apply_chat_template(
                plain, tokenize=False, add_generation_prompt=add_generation_prompt, **self._options
            )
        except Exception as error:  # a template may raise anything; jinja's own errors share no useful base
            roles = ", ".join(m.role for m in messages)
            raise UserError(f"the chat template refuses the turns ({roles}): {error}", where=f"prompt {name}") from error

    def _probe(self) -> tuple[str, str, int | None]:
        """How the template ends an answer: text up to and with its terminator, text after it, the terminator's id."""
        turns = (Message("user", "a"), Message("assistant", _MARK))
        end = self._chat(turns, "template probe", add_generation_prompt=False).rpartition(_MARK)[2]
        for token in self._encoder.encode([end])[end] if end else ():
            if token in self._encoder.special_ids:
                text = self.tokenizer.convert_ids_to_tokens(token)
                closing = end[: end.index(text) + len(text)]
                return closing, end[len(closing) :], token
        return "", end, None

    # tokens ---------------------------------------------------------------------------------------------------------

    def _with_bos(self, text: str, ids: tuple[int, ...], *, chat: bool) -> tuple[int, ...]:
        """Verbatim text starts with the bos token if the tokenizer says so, once; a template writes its own."""
        return ids if chat or self._encoder.starts_with_bos(text) else self._encoder.bos + ids

    def _assemble(
        self,
        group: Group,
        r: _Rendered,
        ids: Mapping[str, tuple[int, ...]],
        counts: Counter[str],
        max_prompt: int | None,
        max_completion: int | None,
        supervise: Supervise,
    ) -> TokenGroup:
        prompt = self._with_bos(r.prompt, ids[r.prompt], chat=r.chat)
        if not prompt:
            raise UserError("the prompt has no tokens", where=f"prompt {group.prompt.id}", fix="give a prompt of a word or more")
        done = tuple(
            self._sampled(a, max_completion)
            if isinstance(a, Completion)
            else self._given(group, r, a, ids, counts, max_completion)
            for a in r.answers
        )
        counts["prompts_cut"] += max_prompt is not None and len(prompt) > max_prompt
        counts["completions_cut"] += sum(c.truncated for c in done)
        counts["pairs_identical_after_cut"] += len(done) > 1 and len({c.ids for c in done}) == 1
        prompt = _keep_end(prompt, max_prompt)
        if supervise == "full":
            rest = prompt[1:]
            done = tuple(Tokens(ids=rest + c.ids, mask=(True,) * len(rest + c.ids), truncated=c.truncated) for c in done)
            prompt = prompt[:1]
        return TokenGroup(prompt=prompt, completions=done, group=group)

    def _sampled(self, completion: Completion, limit: int | None) -> Tokens:
        """Tokens as the engine sampled them."""
        ids, logp = completion.tokens or (), completion.behaviour_logp
        cut = limit is not None and len(ids) > limit
        ids, logp = ids[:limit], None if logp is None else logp[:limit]
        return Tokens(ids=ids, mask=(True,) * len(ids), behaviour_logp=logp, truncated=cut or completion.finish is Finish.LENGTH)

    def _given(
        self,
        group: Group,
        r: _Rendered,
        answer: _Answer,
        ids: Mapping[str, tuple[int, ...]],
        counts: Counter[str],
        limit: int | None,
    ) -> Tokens:
        """Text of a completion as tokens: split from the prompt, ended by one stop token, masked by turn, cut to `limit`."""
        before, whole = ids[r.prompt], ids[answer.text]
        merged = whole[: len(before)] != before
        if merged:
            counts["boundary_merged"] += 1
            self._say_merged(group.prompt.id)
        tail = self._encoder.continuation(answer.text[len(r.prompt) :]) if merged else whole[len(before) :]
        mask = (True,) * len(tail)
        if answer.messages:
            mask = self._turn_mask(group.prompt.id, answer, whole, len(before), merged)
        elif any(token in self.stop_ids for token in tail[:-1]):
            raise UserError(
                "a completion contains a stop token before its end",
                where=f"prompt {group.prompt.id}",
                why="the model would learn to stop there and to go on after stopping",
                fix=f"remove {self._stop_names()} from the text",
            )
        if not tail or tail[-1] not in self.stop_ids:
            tail, mask = (*tail, self._required_stop(chat=r.chat)), (*mask, True)
        cut = limit is not None and len(tail) > limit
        return Tokens(ids=tail[:limit], mask=mask[:limit], truncated=cut)

    def _turn_mask(self, name: str, answer: _Answer, whole: tuple[int, ...], start: int, merged: bool) -> tuple[bool, ...]:
        """The mask of an answer of several turns, of which only the assistant's count."""
        where = f"prompt {name}"
        if merged:
            raise UserError(
                "prompt and completion merge into one token, so turns cannot be told apart",
                where=where,
                fix="use a template that separates turns by special tokens",
            )

        def chat(messages: Sequence[Message], more: bool) -> str:
            return self._chat(messages, name, add_generation_prompt=True) if more else self._closed(messages, name)

        mask = assistant_mask(
            self._encoder, answer.messages, answer.text, whole,
            chat=chat, options=self._options, stop_ids=self.stop_ids, where=where,
        )  # fmt: skip
        return mask[start:]

    def _required_stop(self, *, chat: bool) -> int:
        stop = self._chat_stop if chat else self._text_stop
        if stop is None:
            raise UserError("the tokenizer has no eos token", why="a model trained without one never stops", fix="set eos_token")
        return stop

    def _stop_names(self) -> str:
        return ", ".join(repr(t) for t in self.tokenizer.convert_ids_to_tokens(sorted(self.stop_ids)))

    def _say_merged(self, name: str) -> None:
        if not self._said_merged:
            self._said_merged = True
            _log.warning("prompt and completion share a token (first: prompt %s); such rows are tokenised apart", name)


def _texts(rendered: _Rendered) -> Iterable[str]:
    yield rendered.prompt
    yield from (a.text for a in rendered.answers if isinstance(a, _Answer))


def _keep_end(ids: tuple[int, ...], limit: int | None) -> tuple[int, ...]:
    return ids if limit is None else ids[max(0, len(ids) - limit) :]
