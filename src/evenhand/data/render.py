"""Groups to text: answers behind their prompts, what the template writes around them, and conversations taken apart."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evenhand.data import thinking
from evenhand.data.assistant_mask import Spans, is_marked
from evenhand.data.chat import MARK, ChatFormat
from evenhand.data.encode import Encoder
from evenhand.errors import UserError
from evenhand.types import Completion, Content, Finish, Group, Message, Prompt

_log = logging.getLogger(__name__)
_NOTHING: Mapping[str, Any] = {}


class Rewritten(UserError):
    """A conversation of several turns that the template does not render as its beginnings: no turn lies where it was sampled."""


@dataclass(frozen=True, slots=True)
class RenderedAnswer:
    """One completion as text: `text` = rendered prompt + answer, learned where `train`, without an end where it was `cut`.

    `messages`: the whole conversation if several turns follow the prompt; then `spans` says where the assistant's are, or
    nothing (None) where the template's own marks do.
    """

    text: str
    train: bool = True
    messages: tuple[Message, ...] = ()
    spans: Spans | None = None
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Rendered:
    """A group as text: its name for messages, its prompt, whether that is a conversation, and its answers.

    Sampled completions stay as they are: their tokens are known. `options` are the prompt's own for the template.
    """

    name: str
    prompt: str
    chat: bool
    answers: tuple[RenderedAnswer | Completion, ...]
    options: Mapping[str, Any]

    @property
    def texts(self) -> tuple[str, ...]:
        """Everything that is to be tokenised."""
        return (self.prompt, *(a.text for a in self.answers if isinstance(a, RenderedAnswer)))


def joined(content: Sequence[Message], turns: Sequence[Message]) -> tuple[Message, ...]:
    """A prompt's turns and those of an answer as one conversation: an answer that continues a begun turn becomes part of it."""
    made: list[Message] = []
    for turn in (*content, *turns):
        if made and made[-1].prefill and turn.role == "assistant":
            begun = made.pop()
            turn = replace(turn, content=begun.content + turn.content, extra={**begun.extra, **turn.extra})
        made.append(turn)
    return tuple(made)


class ChatRenderer:
    """Text as the model is to see it. `terminator`: the id of the token with which the template ends an answer, or None."""

    def __init__(self, encoder: Encoder, options: Mapping[str, Any]) -> None:
        self._tokenizer, self._encoder = encoder.tokenizer, encoder
        self.chat = ChatFormat(self._tokenizer, options)
        self.options = self.chat.options
        self._said: set[str] = set()
        self._marks = is_marked(self._tokenizer.chat_template)
        self._closing, self._tail, self.terminator = self._probe() if self._tokenizer.chat_template else ("", "", None)

    def group(self, group: Group, *, all_turns: bool) -> Rendered:
        """The texts of a group; `all_turns` moves everything from the first assistant turn on into the completions."""
        name, content, options = group.prompt.id, group.prompt.content, group.prompt.options
        moved: tuple[Message, ...] = ()
        if not group.completions:
            raise UserError("the prompt has no completion", where=f"prompt {name}", fix="use prompt_ids for prompts")
        sampled = any(c.tokens is not None for c in group.completions)
        if all_turns and not sampled and not isinstance(content, str):
            first = next((i for i, m in enumerate(content) if m.role == "assistant"), len(content))
            content, moved = content[:first], content[first:]
        prompt = self.prompt(content, name, options)
        answers = tuple(
            c if c.tokens is not None else self._answer(content, prompt, moved, c, name, options) for c in group.completions
        )
        return Rendered(name, prompt, not isinstance(content, str), answers, options)

    def prompt(self, content: Content, name: str, options: Mapping[str, Any] = _NOTHING) -> str:
        """A prompt with the generation prompt behind it, or up to the last word of a turn that is begun, or verbatim text."""
        if isinstance(content, str):
            return content
        if content and content[-1].prefill:
            return self._begun(content, name, options)
        return self.chat.text(content, name, options, add_generation_prompt=True)

    def _begun(self, content: Sequence[Message], name: str, options: Mapping[str, Any]) -> str:
        text, ends = self.chat.text(content, name, options, add_generation_prompt=False), self._closing + self._tail
        text = text[: len(text) - len(ends)] if ends and text.endswith(ends) else text
        words = content[-1].content
        before, found, after = text.rpartition(words.strip())
        if not found or after.strip():
            raise UserError(
                "the chat template does not write the begun turn as it is, so that no answer can continue it",
                where=f"prompt {name}",
                fix="end the prompt with the user's turn, or use a template that keeps turns as they are",
            )
        return before + found + words[len(words.rstrip()) :]

    def between(self, prompt: Prompt, replies: Sequence[Sequence[Message]]) -> list[tuple[str, str]]:
        """For each reply the conversation up to the end of the model's turn before it, and up to the model's next word, with
        marks in place of what the model wrote; see `Renderer.between`."""
        content, name = prompt.content, prompt.id
        if isinstance(content, str):
            raise UserError(
                "a text prompt has no turns", where=f"prompt {name}", fix="give prompts as conversations, with a chat template"
            )
        if self.terminator is None:
            raise UserError(
                "the chat template has no special token that ends a turn", where=f"prompt {name}",
                why="where the model's turn ends and its environment's begins would be a matter of text",
                fix="use another template",
            )  # fmt: skip
        marks = [f"{MARK}{number:03d}" for number in range(len(replies))]
        turns = [turn for mark, reply in zip(marks, replies, strict=True) for turn in (Message("assistant", mark), *reply)]
        text = self.chat.text(joined(content, turns), name, prompt.options, add_generation_prompt=True)
        ends, at = [], len(self.prompt(content, name, prompt.options))
        if not text.startswith(self.prompt(content, name, prompt.options) + marks[0]):
            raise self._rewrites(1, name)
        for number, mark in enumerate(marks, 1):
            if not text[at:].startswith(mark + self._closing):
                raise self._rewrites(number, name)
            end, following = at + len(mark + self._closing), marks[number : number + 1]
            at = text.find(following[0], end) if following else len(text)
            ends.append((text[:end], text[: at if at >= 0 else len(text)]))
        return ends

    def _rewrites(self, turn: int, name: str) -> Rewritten:
        return Rewritten(
            f"the chat template writes turn {turn} of an answer otherwise than behind its prompt",
            where=f"prompt {name}", why="its tokens would not lie where they were sampled",
            fix="use a template that keeps turns as they are",
        )  # fmt: skip

    def closed(self, messages: Sequence[Message], name: str, options: Mapping[str, Any] = _NOTHING) -> str:
        """A conversation rendered up to the terminator of its last turn; what a template writes after that is no one's."""
        text = self.chat.text(messages, name, options, add_generation_prompt=False)
        return text[: len(text) - len(self._tail)] if self._tail and text.endswith(self._closing + self._tail) else text

    def whole(self, prompt: Prompt, completion: Completion) -> str:
        """Prompt and answer to the very end of what the template writes; to the answer's own end where that was cut."""
        turns, content = completion.content, prompt.content
        if isinstance(content, str):
            return content + (turns if isinstance(turns, str) else turns[0].content)
        turns = (Message("assistant", turns),) if isinstance(turns, str) else turns
        text = self.chat.text(joined(content, turns), prompt.id, prompt.options, add_generation_prompt=False)
        ends = self._closing + self._tail
        cut = completion.finish is Finish.LENGTH and ends and text.endswith(ends)
        return text[: len(text) - len(ends)] if cut else text

    def _answer(
        self,
        content: Content,
        prompt: str,
        moved: Sequence[Message],
        completion: Completion,
        name: str,
        options: Mapping[str, Any],
    ) -> RenderedAnswer:
        turns = completion.content
        if completion.finish is Finish.LENGTH and isinstance(turns, str):
            return RenderedAnswer(prompt + turns, cut=True)
        if isinstance(content, str):
            if not isinstance(turns, str) and (len(turns) != 1 or turns[0].extra):
                raise UserError("a conversation cannot continue a text prompt", where=f"prompt {name}")
            train = isinstance(turns, str) or turns[0].train
            return RenderedAnswer(prompt + (turns if isinstance(turns, str) else turns[0].content), train)
        turns = (Message("assistant", turns),) if isinstance(turns, str) else turns
        messages = joined(content, (*moved, *turns))
        begun = bool(content) and content[-1].prefill
        said = turns if begun else messages[len(content) :]
        whole = self.closed(messages, name, options)
        if len(said) > 1 or said[0].role != "assistant":
            several = self._several(prompt, messages, whole, name, options)
            self._say_changed(messages, len(messages) - len(said), whole, name)
            return several
        block = None if begun else thinking.left_open(prompt)
        text = self._in_block(block, prompt, said[0], whole, name) if block else self._behind(prompt, said[0], whole, name)
        self._say_changed(messages, len(messages) - (not block), whole, name)
        self._keep_thoughts(said[0], text, name)
        return RenderedAnswer(text, said[0].train)

    def _behind(self, prompt: str, said: Message, whole: str, name: str) -> str:
        """Prompt and one answer, as the template writes the conversation; behind the prompt where that does not begin so."""
        if whole.startswith(prompt):
            return whole
        if said.extra:
            more = ", ".join(said.extra)
            raise UserError(
                f"the answer is more than text ({more}), and the template's prompt is not how it begins",
                where=f"prompt {name}",
                fix="use a template whose generation prompt is what it writes before an answer",
            )
        return prompt + said.content + self._closing

    def _in_block(self, block: thinking.ThinkingBlock, prompt: str, said: Message, whole: str, name: str) -> str:
        """Prompt and one answer where the prompt opens a block of thoughts: it is filled, or closed at once."""
        base = prompt[: len(prompt) - block.length]
        written = whole[len(base) :] if whole.startswith(base) else ""
        thoughts = said.extra.get("reasoning_content", "")
        if thoughts and thinking.squeezed(thoughts) in thinking.squeezed(written):
            inner = None
        else:
            inner = thinking.continued(block, self.chat.turns([said], name)[0]["content"], written)
        if inner is not None and "tool_calls" in said.extra:
            fix = "use a template that writes the block of thoughts where its prompts open it"
            raise UserError(
                "a tool call cannot follow the block of thoughts that the prompt opens", where=f"prompt {name}", fix=fix
            )
        return prompt + (thinking.after(block, written) if inner is None else inner + self._closing)

    def _keep_thoughts(self, said: Message, text: str, name: str) -> None:
        if thinking.squeezed(said.extra.get("reasoning_content", "")) not in thinking.squeezed(text):
            raise UserError(
                "the chat template leaves out the thoughts of the answer",
                where=f"prompt {name}",
                why="the answer alone would be learned",
                fix="check the template's options (enable_thinking), or use a template that keeps them",
            )

    def _several(
        self, prompt: str, messages: tuple[Message, ...], whole: str, name: str, options: Mapping[str, Any]
    ) -> RenderedAnswer:
        """Several turns behind a prompt: where each of the assistant's lies in the whole."""
        if not whole.startswith(prompt):
            raise Rewritten(
                "the chat template rewrites earlier turns, so the prompt is not a prefix of the conversation",
                where=f"prompt {name}",
                fix="use supervise: completion with one answer per row, or a template that keeps turns as they are",
            )
        thinks = any(m.role == "assistant" and ("reasoning_content" in m.extra or "</think>" in m.content) for m in messages)
        if self._marks and not thinks and all(m.train for m in messages):
            return RenderedAnswer(whole, True, messages)
        spans = tuple(
            (*self._span(messages, i, whole, name, options), m.train) for i, m in enumerate(messages) if m.role == "assistant"
        )
        return RenderedAnswer(whole, True, messages, spans)

    def _span(
        self, messages: tuple[Message, ...], index: int, whole: str, name: str, options: Mapping[str, Any]
    ) -> tuple[int, int]:
        before = self.prompt(messages[:index], name, options)
        after = self.closed(messages[: index + 1], name, options)
        block = thinking.left_open(before)
        if whole.startswith(before) and whole.startswith(after) and not (block and block.end not in after[len(before) :]):
            return len(before), len(after)
        raise Rewritten(
            f"the chat template rewrites turn {index + 1} once a later turn follows",
            where=f"prompt {name}",
            why="what was rendered up to the turn is then not a prefix of the conversation",
            fix="give each answer a row of its own, or use a template that keeps turns as they are",
        )

    def _say_changed(self, messages: Sequence[Message], first: int, whole: str, name: str) -> None:
        """Once each: words of others that the template leaves out, and an answer that it shortens, which is learned so."""
        for index, turn in enumerate(messages):
            kind = "answer" if turn.role == "assistant" else turn.role
            if kind in self._said or (kind == "answer" and index < first) or thinking.written(turn.content, whole):
                continue
            self._said.add(kind)
            if kind == "answer":
                _log.warning("the chat template changes what the assistant wrote (first: prompt %s); it is learned so", name)
            else:
                _log.warning("the chat template leaves out or changes what the %s says (first: prompt %s)", kind, name)

    def _probe(self) -> tuple[str, str, int | None]:
        """How the template ends an answer: text up to and with its terminator, text after it, the terminator's id."""
        turns = (Message("user", "a"), Message("assistant", MARK))
        text, found, end = self.chat.text(turns, "template probe", add_generation_prompt=False).rpartition(MARK)
        if not found:
            raise UserError(
                "the chat template does not write the assistant's words as they are",
                where="chat template",
                why=f"for an answer '{MARK}' it writes {end[:200]!r}: where answers end cannot be known",
                fix="use another template, such as template: chatml",
            )
        for token in self._encoder.encode([end])[end] if end else ():
            if token in self._encoder.special_ids:
                text = self._tokenizer.convert_ids_to_tokens(token)
                closing = end[: end.index(text) + len(text)]
                return closing, end[len(closing) :], token
        return "", end, None
