"""Groups to text: the chat template, what it writes around an answer, and answers behind their prompts."""

from __future__ import annotations

import datetime
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evenhand.data.chat_templates import TEMPLATES
from evenhand.data.encode import Encoder
from evenhand.errors import UserError
from evenhand.types import Completion, Content, Finish, Group, Message, Prompt

_MARK = "evenhandmark"
TODAY = datetime.datetime(2024, 7, 26)
"""The date for templates that ask for today's (`strftime_now`): with the real one, cells of two days would be told two things."""
_ASKS_TODAY = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
_log = logging.getLogger(__name__)


def told_today(template: Any) -> dict[str, Any]:
    """Arguments of `apply_chat_template` by which a template that asks for the date is told `TODAY`; none for other templates.

    >>> told_today("{{ strftime_now('%d %b %Y') }}")
    {'chat_template': "{{ '26 Jul 2024' }}"}
    """
    if not isinstance(template, str) or not _ASKS_TODAY.search(template):
        return {}
    return {"chat_template": _ASKS_TODAY.sub(lambda asked: repr(TODAY.strftime(asked[2])), template)}


@dataclass(frozen=True, slots=True)
class Answer:
    """One completion as text: `text` = rendered prompt + answer. `messages`: the whole conversation if its turns alternate."""

    text: str
    messages: tuple[Message, ...] = ()


@dataclass(frozen=True, slots=True)
class Rendered:
    """A group as text: its name for messages, its prompt, whether that is a conversation, and its answers.

    Sampled completions stay as they are: their tokens are known.
    """

    name: str
    prompt: str
    chat: bool
    answers: tuple[Answer | Completion, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that is to be tokenised."""
        return (self.prompt, *(a.text for a in self.answers if isinstance(a, Answer)))


class ChatRenderer:
    """Text as the model is to see it. `terminator`: the id of the token with which the template ends an answer, or None."""

    def __init__(self, encoder: Encoder, options: Mapping[str, Any]) -> None:
        self._tokenizer, self._encoder = encoder.tokenizer, encoder
        self.options = dict(options)
        self.arguments = {**options, **told_today(self._tokenizer.chat_template)}
        self._said_changed = False
        self._closing, self._tail, self.terminator = self._probe() if self._tokenizer.chat_template else ("", "", None)

    def group(self, group: Group, *, all_turns: bool) -> Rendered:
        """The texts of a group; `all_turns` moves everything from the first assistant turn on into the completions."""
        name, content, moved = group.prompt.id, group.prompt.content, ()
        if not group.completions:
            raise UserError("the prompt has no completion", where=f"prompt {name}", fix="use prompt_ids for prompts")
        sampled = any(c.tokens is not None for c in group.completions)
        if all_turns and not sampled and not isinstance(content, str):
            first = next((i for i, m in enumerate(content) if m.role == "assistant"), len(content))
            content, moved = content[:first], content[first:]
        prompt = self.prompt(content, name)
        answers = tuple(c if c.tokens is not None else self._answer(content, prompt, moved, c, name) for c in group.completions)
        return Rendered(name, prompt, not isinstance(content, str), answers)

    def prompt(self, content: Content, name: str) -> str:
        """A prompt with the generation prompt behind it, or verbatim text."""
        return content if isinstance(content, str) else self._chat(content, name, add_generation_prompt=True)

    def closed(self, messages: Sequence[Message], name: str) -> str:
        """A conversation rendered up to the terminator of its last turn; what a template writes after that is no one's."""
        text = self._chat(messages, name, add_generation_prompt=False)
        return text[: len(text) - len(self._tail)] if self._tail and text.endswith(self._closing + self._tail) else text

    def whole(self, prompt: Prompt, completion: Completion) -> str:
        """Prompt and answer to the very end of what the template writes; to the answer's own end where that was cut."""
        turns, content = completion.content, prompt.content
        if isinstance(content, str):
            return content + (turns if isinstance(turns, str) else turns[0].content)
        turns = (Message("assistant", turns),) if isinstance(turns, str) else turns
        text = self._chat((*content, *turns), prompt.id, add_generation_prompt=False)
        ends = self._closing + self._tail
        cut = completion.finish is Finish.LENGTH and ends and text.endswith(ends)
        return text[: len(text) - len(ends)] if cut else text

    def _answer(self, content: Content, prompt: str, moved: tuple[Message, ...], completion: Completion, name: str) -> Answer:
        turns = completion.content
        if isinstance(content, str):
            if not isinstance(turns, str) and len(turns) != 1:
                raise UserError("a conversation cannot continue a text prompt", where=f"prompt {name}")
            return Answer(prompt + (turns if isinstance(turns, str) else turns[0].content))
        turns = (*moved, *((Message("assistant", turns),) if isinstance(turns, str) else turns))
        whole = self.closed((*content, *turns), name)
        self._say_changed(turns, whole, name)
        several = len(turns) > 1 or turns[0].role != "assistant"
        if whole.startswith(prompt):
            return Answer(whole, (*content, *turns) if several else ())
        if several:
            raise UserError(
                "the chat template rewrites earlier turns, so the prompt is not a prefix of the conversation",
                where=f"prompt {name}",
                fix="use supervise: completion with one answer per row, or a template that keeps turns as they are",
            )
        return Answer(prompt + turns[0].content + self._closing)  # e.g. a generation prompt that opens a thinking block

    def _say_changed(self, turns: Sequence[Message], whole: str, name: str) -> None:
        """Once: an answer that the template shortens (a block of thoughts, by some) is learned as the template has it."""
        if self._said_changed:
            return
        for turn in turns:
            words = turn.content.strip()
            if turn.role == "assistant" and words not in whole and "".join(words.split()) not in "".join(whole.split()):
                self._said_changed = True
                _log.warning("the chat template changes what the assistant wrote (first: prompt %s); it is learned so", name)
                return

    def _chat(self, messages: Sequence[Message], name: str, *, add_generation_prompt: bool) -> str:
        if not self._tokenizer.chat_template:
            raise UserError(
                "the data are conversations, but the tokenizer has no chat template",
                where=f"prompt {name}",
                why="the turns would have to be joined in a way the model was not trained for",
                fix=f"choose one by name: template: {' | '.join(TEMPLATES)}",
            )
        plain = [{"role": m.role, "content": m.content} for m in messages]
        try:
            return self._tokenizer.apply_chat_template(
                plain, tokenize=False, add_generation_prompt=add_generation_prompt, **self.arguments
            )
        except Exception as error:  # a template may raise anything; jinja's own errors share no useful base
            roles = ", ".join(m.role for m in messages)
            raise UserError(f"the chat template refuses the turns ({roles}): {error}", where=f"prompt {name}") from error

    def _probe(self) -> tuple[str, str, int | None]:
        """How the template ends an answer: text up to and with its terminator, text after it, the terminator's id."""
        turns = (Message("user", "a"), Message("assistant", _MARK))
        text, found, end = self._chat(turns, "template probe", add_generation_prompt=False).rpartition(_MARK)
        if not found:
            raise UserError(
                "the chat template does not write the assistant's words as they are",
                where="chat template",
                why=f"for an answer '{_MARK}' it writes {end[:200]!r}: where answers end cannot be known",
                fix="use another template, such as template: chatml",
            )
        for token in self._encoder.encode([end])[end] if end else ():
            if token in self._encoder.special_ids:
                text = self._tokenizer.convert_ids_to_tokens(token)
                closing = end[: end.index(text) + len(text)]
                return closing, end[len(closing) :], token
        return "", end, None
