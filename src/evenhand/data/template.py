"""Groups to token ids and back: the one place where text is rendered, tokenised, cut and masked.

A conversation is rendered once, prompt and answer together, and tokenised once; the prompt's own ids must be its prefix.
Text prompts are used verbatim. Which tokens count is known from lengths, so a pad token can never hide a stop token.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from evenhand.data.assistant_mask import by_marks, by_spans, checked
from evenhand.data.chat_templates import with_template
from evenhand.data.encode import Encoder, fingerprint, generation_stops
from evenhand.data.render import ChatRenderer, Rendered, RenderedAnswer, Rewritten, joined
from evenhand.data.thinking import Unclosed
from evenhand.errors import UserError, one_of
from evenhand.types import Completion, Finish, Group, Message, Prompt, TokenGroup, Tokens

SUPERVISE = ("completion", "assistant", "full")
"""Which tokens of a conversation are learned.

completion: what the assistant writes after the prompt. assistant: every assistant turn; the prompt then ends before the
first of them. full: everything but the first token, which becomes the prompt (language modelling).
"""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tokenised:
    """What `Renderer.tokenise_all` returns.

    `groups` in order; `dropped` (index, reason) of those that cannot be learned from; `counts` of what was noteworthy:
    prompts_cut, completions_cut, pairs_identical_after_cut, boundary_merged (prompt and completion tokenised apart),
    conversations_split (each answer became a group of its own: the template rewrites turns once others follow).
    """

    groups: tuple[TokenGroup, ...]
    dropped: tuple[tuple[int, str], ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


class StopInside(UserError):
    """A completion whose text spells a stop token: the model would learn to stop there and to go on after stopping."""


class Renderer:
    """Renders and tokenises groups for one tokenizer and one chat template.

    `template` names one of `chat_templates.TEMPLATES` for a tokenizer without a template of its own; `options` are handed
    to the template (`enable_thinking: false`). `tokenizer` is then the tokenizer to save beside a model, template included.
    `stop_ids` is the union of the tokenizer's eos, the generation config's eos list, the template's terminator and
    `extra_stops`; `stop_id` is the one that ends an answer of a conversation.
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
        self._encoder = Encoder(self.tokenizer)
        self._render = ChatRenderer(self._encoder, options or {})
        eos, terminator = self.tokenizer.eos_token_id, self._render.terminator
        found = {eos, terminator, *generation_stops(tokenizer), *extra_stops} - {None}
        self.stop_ids: frozenset[int] = frozenset(found)
        self._text_stop: int | None = eos if eos is not None else terminator
        self.stop_id: int | None = terminator if terminator is not None else eos
        pad = self.tokenizer.pad_token_id
        self.pad_id: int = pad if pad is not None else (eos if eos is not None else 0)
        self._said: set[str] = set()

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with the tokenizer, the template, its options or the stop ids."""
        return fingerprint(self.tokenizer, self._render.options, sorted(self.stop_ids))

    def prompt_text(self, prompt: Prompt) -> str:
        """The rendered prompt, exactly as the model sees it (a bos token that the tokenizer adds is not shown)."""
        return self._render.prompt(prompt.content, prompt.id, prompt.options)

    def prompt_ids(self, prompt: Prompt, max_prompt: int | None = None) -> tuple[int, ...]:
        """The ids that an answer continues; with `max_prompt`, the last so many of them."""
        text = self.prompt_text(prompt)
        ids = self._prompt(text, self._encoder.encode([text])[text], not isinstance(prompt.content, str), prompt.id)
        return _keep_end(ids, max_prompt)

    def whole_ids(self, prompt: Prompt, completion: Completion) -> tuple[int, ...]:
        """A prompt and the text of a completion as a reader of whole conversations is given them.

        What the template writes behind an answer is there; behind an answer that was cut (`Finish.LENGTH`) it is not. A text
        prompt is continued verbatim, and a finished answer closed with the eos token.
        """
        text, chat = self._render.whole(prompt, completion), not isinstance(prompt.content, str)
        ids = self._encoder.encode([text])[text]
        if not chat and completion.finish is not Finish.LENGTH and self._text_stop is not None and ids[-1:] != (self._text_stop,):
            ids = (*ids, self._text_stop)
        return self._prompt(text, ids, chat, prompt.id)

    def between(self, prompt: Prompt, replies: Sequence[Sequence[Message]]) -> list[tuple[int, ...]]:
        """The ids that stand between the turns of an answer: behind each stop token of the model's, what the template writes of a
        reply and up to the model's next word. `replies` are the turns of others after each of the model's.

        They do not depend on what the model wrote, whose ids stay as sampled. UserError where a template's earlier turns change
        once others follow, or where a turn and what follows it share a token.
        """
        pieces = self._render.between(prompt, replies)
        ids = self._encoder.encode(text for piece in pieces for text in piece)
        for before, whole in pieces:
            if ids[whole][: len(ids[before])] != ids[before]:
                raise UserError(
                    "what follows a turn of the model shares a token with it", where=f"prompt {prompt.id}",
                    why="the turn's own tokens would not be those that were sampled",
                    fix="use a template that ends turns with a special token",
                )  # fmt: skip
        return [ids[whole][len(ids[before]) :] for before, whole in pieces]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a completion: up to its first stop token, special tokens removed, a leading blank kept."""
        end = next((i for i, token in enumerate(ids) if token in self.stop_ids), len(ids))
        return self._encoder.decode(ids[:end])

    def piece(self, ids: Sequence[int]) -> str:
        """Ids as they are spelled inside a text, to look at: a leading blank is kept, special tokens are written out."""
        if any(i in self._encoder.special_ids for i in ids):
            return self.tokenizer.decode(list(ids), skip_special_tokens=False)
        return self._encoder.decode(ids)

    def tokenise(
        self, group: Group, *, max_prompt: int | None, max_completion: int | None, supervise: str = "completion"
    ) -> TokenGroup:
        """One group as tokens; see `tokenise_all`. Raises UserError where that would drop the group."""
        result = self.tokenise_all([group], max_prompt=max_prompt, max_completion=max_completion, supervise=supervise)
        if result.dropped:
            raise UserError(result.dropped[0][1], where=f"prompt {group.prompt.id}", fix="correct or drop the row")
        if len(result.groups) > 1:
            what = "the template rewrites earlier turns, so that the conversation becomes several groups"
            raise UserError(what, where=f"prompt {group.prompt.id}", fix="use tokenise_all, or supervise: completion")
        return result.groups[0]

    def tokenise_all(
        self,
        groups: Sequence[Group],
        *,
        max_prompt: int | None,
        max_completion: int | None,
        supervise: str = "completion",
    ) -> Tokenised:
        """Groups as tokens, tokenised in one batch.

        The prompt keeps its last `max_prompt` tokens, a completion its first `max_completion`. A completion from data
        ends with exactly one stop token, which counts; one that was cut has none and is marked `truncated`. Sampled
        `tokens` are used as they are. A group with a completion that has no supervised token, or a stop token before its
        end, is dropped with the reason.
        """
        one_of("value", supervise, SUPERVISE, where="supervise")
        counts: Counter[str] = Counter()
        kept: list[TokenGroup] = []
        dropped: list[tuple[int, str]] = []
        rendered = list(self._rendered(groups, supervise, counts, dropped))
        ids = self._encoder.encode(text for _, _, r in rendered for text in r.texts)
        for index, group, r in rendered:
            whole = self._prompt(r.prompt, ids[r.prompt], r.chat, r.name)
            try:
                done = tuple(self._completion(r, a, ids, counts, max_completion) for a in r.answers)
            except StopInside as error:
                dropped.append((index, error.what))
                continue
            prompt = _keep_end(whole, max_prompt)
            counts["prompts_cut"] += len(prompt) < len(whole)
            counts["completions_cut"] += sum(c.truncated for c in done)
            counts["pairs_identical_after_cut"] += len(done) > 1 and len({c.ids for c in done}) == 1
            empty = [i for i, c in enumerate(done) if not any(c.mask)]
            if empty:
                dropped.append((index, f"completion {empty[0]} has no supervised token after truncation"))
                continue
            token_group = TokenGroup(prompt=prompt, completions=done, group=group)
            kept.append(_all_supervised(token_group) if supervise == "full" else token_group)
        return Tokenised(tuple(kept), tuple(sorted(dropped)), dict(counts))

    def _rendered(
        self, groups: Sequence[Group], supervise: str, counts: Counter[str], dropped: list[tuple[int, str]]
    ) -> Iterator[tuple[int, Group, Rendered]]:
        """Each group with its index and text; in pieces, a group for each answer, where the template rewrites earlier turns."""
        for index, group in enumerate(groups):
            if supervise == "full":
                _refuse_weights(group)
            try:
                yield index, group, self._render.group(group, all_turns=supervise == "assistant")
            except Unclosed as error:
                dropped.append((index, error.what))
            except Rewritten as error:
                if supervise != "assistant" or len(group.completions) != 1:
                    raise
                counts["conversations_split"] += 1
                self._say("split", f"{error.what}: each answer is learned behind the turns that it was given behind", group)
                yield from self._pieces(index, group, dropped)

    def _pieces(self, index: int, group: Group, dropped: list[tuple[int, str]]) -> Iterator[tuple[int, Group, Rendered]]:
        for piece in _answers_apart(group):
            try:
                yield index, piece, self._render.group(piece, all_turns=False)
            except Unclosed as error:
                dropped.append((index, error.what))

    def _prompt(self, text: str, ids: tuple[int, ...], chat: bool, name: str) -> tuple[int, ...]:
        """Verbatim text starts with the bos token if the tokenizer says so, once; a template writes its own."""
        ids = ids if chat or self._encoder.starts_with_bos(text) else self._encoder.bos + ids
        if not ids:
            raise UserError("the prompt has no tokens", where=f"prompt {name}", fix="give a prompt of one word or more")
        return ids

    def _completion(
        self,
        r: Rendered,
        answer: RenderedAnswer | Completion,
        ids: Mapping[str, tuple[int, ...]],
        counts: Counter[str],
        limit: int | None,
    ) -> Tokens:
        if isinstance(answer, Completion):
            return _sampled(answer, limit)
        before, whole = ids[r.prompt], ids[answer.text]
        merged = whole[: len(before)] != before
        if merged:
            counts["boundary_merged"] += 1
            self._say("merged", "prompt and completion share a token; such rows are tokenised apart", r)
        tail = self._encoder.continuation(answer.text[len(r.prompt) :]) if merged else whole[len(before) :]
        mask = self._mask(r, answer, whole, tail, merged)
        if not tail or (tail[-1] not in self.stop_ids and not answer.cut):
            tail, mask = (*tail, self._stop(chat=r.chat)), (*mask, True)
        return Tokens(ids=tail[:limit], mask=mask[:limit], truncated=answer.cut or (limit is not None and len(tail) > limit))

    def _mask(
        self, r: Rendered, answer: RenderedAnswer, whole: tuple[int, ...], tail: tuple[int, ...], merged: bool
    ) -> tuple[bool, ...]:
        """True on all of a single answer, which may stop only at its end; by turn where several turns follow the prompt."""
        where = f"prompt {r.name}"
        if not answer.messages:
            if any(token in self.stop_ids for token in tail[:-1]):
                names = ", ".join(repr(t) for t in self.tokenizer.convert_ids_to_tokens(sorted(self.stop_ids)))
                raise StopInside(f"a completion contains a stop token ({names}) before its end", where=where)
            return (answer.train,) * len(tail)
        if merged:
            raise UserError(
                "prompt and completion merge into one token, so turns cannot be told apart",
                where=where,
                fix="use a template that separates turns by special tokens",
            )
        if answer.spans is None:
            mask = by_marks(self._render.chat.marked(answer.messages, r.name, r.options), whole, where)
        else:
            mask = by_spans(answer.spans, self._encoder.offsets(answer.text)[1])
        return checked(mask, whole, self.stop_ids, where)[len(whole) - len(tail) :]

    def _stop(self, *, chat: bool) -> int:
        stop = self.stop_id if chat else self._text_stop
        if stop is None:
            raise UserError("the tokenizer has no eos token", why="a model trained without one never stops", fix="set eos_token")
        return stop

    def _say(self, kind: str, what: str, group: Group | Rendered) -> None:
        """A warning, once of each kind."""
        if kind not in self._said:
            self._said.add(kind)
            _log.warning("%s (first: prompt %s)", what, group.prompt.id if isinstance(group, Group) else group.name)


def _answers_apart(group: Group) -> list[Group]:
    """A conversation as one group for each answer that is learned, its prompt all that was said before."""
    content, (completion,) = group.prompt.content, group.completions
    assert not isinstance(content, str)
    said = completion.content
    turns = joined(content, (Message("assistant", said),) if isinstance(said, str) else said)
    return [
        replace(
            group, prompt=replace(group.prompt, content=turns[:i], id=""), completions=(Completion(content=turns[i : i + 1]),)
        )
        for i, turn in enumerate(turns)
        if i and turn.role == "assistant" and turn.train
    ]


def _refuse_weights(group: Group) -> None:
    """`supervise: full` learns every token, and so a turn that has weight 0."""
    contents = (group.prompt.content, *(c.content for c in group.completions))
    if any(not m.train for content in contents if not isinstance(content, str) for m in content):
        fix = "use supervise: completion or assistant, or take the weight off"
        raise UserError("supervise: full would learn a turn of weight 0", where=f"prompt {group.prompt.id}", fix=fix)


def _sampled(completion: Completion, limit: int | None) -> Tokens:
    """Tokens as the engine sampled them."""
    ids, logp = completion.tokens or (), completion.behaviour_logp
    cut = limit is not None and len(ids) > limit
    ids, logp = ids[:limit], None if logp is None else logp[:limit]
    mask = completion.mask[:limit]
    return Tokens(ids=ids, mask=mask, behaviour_logp=logp, truncated=cut or completion.finish is Finish.LENGTH)


def _all_supervised(group: TokenGroup) -> TokenGroup:
    """The same tokens with only the first as prompt: language modelling over the whole text."""
    rest = group.prompt[1:]
    done = tuple(replace(c, ids=rest + c.ids, mask=(True,) * len(rest + c.ids), behaviour_logp=None) for c in group.completions)
    return replace(group, prompt=group.prompt[:1], completions=done)


def _keep_end(ids: tuple[int, ...], limit: int | None) -> tuple[int, ...]:
    return ids if limit is None else ids[max(0, len(ids) - limit) :]
