"""Turns through a tokenizer's chat template: with tools, thoughts and tool calls, or a refusal where it has no place for them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from evenhand.data.chat_templates import TEMPLATES
from evenhand.data.dates import told_today
from evenhand.data.thinking import left_open
from evenhand.errors import UserError
from evenhand.types import Message

MARK = "evenhandmark"
"""A word that stands for an answer where templates are tried."""
_THOUGHTS = "evenhandthoughts"
_NOTHING: Mapping[str, Any] = {}


class ChatFormat:
    """A tokenizer's chat template. `options` are its arguments for every prompt; a prompt's own come on top."""

    def __init__(self, tokenizer: Any, options: Mapping[str, Any]) -> None:
        self._tokenizer = tokenizer
        self.options = dict(options)
        self._proven: set[str] = set()
        self._thoughts: str | None = None

    def text(
        self, messages: Sequence[Message], name: str, options: Mapping[str, Any] = _NOTHING, *, add_generation_prompt: bool
    ) -> str:
        """The turns as text. Raises UserError, for the prompt `name`, where the template refuses them or leaves tools out."""
        plain, arguments = self.turns(messages, name), self.arguments(options)
        text = self._render(plain, arguments, name, add_generation_prompt)
        for key, there in (("tools", bool(arguments.get("tools"))), ("tool_calls", any("tool_calls" in m for m in plain))):
            if there and key not in self._proven:
                self._prove(key, text, plain, arguments, name, add_generation_prompt)
        return text

    def arguments(self, options: Mapping[str, Any] = _NOTHING) -> dict[str, Any]:
        """The arguments of `apply_chat_template` for a prompt with these options."""
        made = {**self.options, **options}
        return made | told_today(self._tokenizer.chat_template, tools=bool(made.get("tools")))

    def turns(self, messages: Sequence[Message], name: str) -> list[dict[str, Any]]:
        """The turns as the template takes them, thoughts where it looks for them."""
        return [self._thinking(m, name) if "reasoning_content" in m.extra else m.as_dict() for m in messages]

    def _thinking(self, message: Message, name: str) -> dict[str, Any]:
        if self._thoughts is None:
            self._thoughts = self._place_of_thoughts()
        plain, thoughts = message.as_dict(), message.extra["reasoning_content"]
        if self._thoughts == "own":  # the names under which templates ask for them
            return plain | {"thinking": thoughts}
        if not self._thoughts:
            raise UserError(
                "the chat template has no place for thoughts ('reasoning_content')",
                where=f"prompt {name}",
                why="they would vanish, and the answer alone would be learned",
                fix="write them into the answer's text, between marks that the model knows, or use a template that takes them",
            )
        block = left_open(self._thoughts)
        assert block is not None
        del plain["reasoning_content"]
        inner = f"{block.start}{block.blanks}{thoughts.strip()}{block.blanks}{block.end}{block.blanks * 2}{message.content}"
        return plain | {"content": inner}

    def _place_of_thoughts(self) -> str:
        """own: a key of the message; the end of a generation prompt that opens a block: in there; "": nowhere."""
        asked = (Message("user", "a"),)
        answer = {"role": "assistant", "content": MARK, "reasoning_content": _THOUGHTS, "thinking": _THOUGHTS}
        arguments = self.arguments()
        if _THOUGHTS in self._render([asked[0].as_dict(), answer], arguments, "template probe", False):
            return "own"
        open_prompt = self._render([asked[0].as_dict()], arguments, "template probe", True)
        return open_prompt if left_open(open_prompt) else ""

    def _prove(
        self, key: str, text: str, plain: list[dict[str, Any]], arguments: Mapping[str, Any], name: str, generation: bool
    ) -> None:
        """Once: without what stands under `key`, the template must write something else."""
        without = [{k: v for k, v in m.items() if k != key} for m in plain]
        rest = {k: v for k, v in arguments.items() if k != key}
        try:
            same = self._render(without, rest, name, generation) == text
        except UserError:
            same = False
        if same:
            raise UserError(
                f"the chat template has no place for '{key}'",
                where=f"prompt {name}",
                why="they would vanish without a word",
                fix="use a template that writes them, or write them into the text of the turns",
            )
        self._proven.add(key)

    def _render(self, plain: list[dict[str, Any]], arguments: Mapping[str, Any], name: str, generation: bool) -> str:
        if not self._tokenizer.chat_template:
            raise UserError(
                "the data are conversations, but the tokenizer has no chat template",
                where=f"prompt {name}",
                why="the turns would have to be joined in a way the model was not trained for",
                fix=f"choose one by name: template: {' | '.join(TEMPLATES)}",
            )
        return self._applied(plain, arguments, name, tokenize=False, add_generation_prompt=generation)

    def marked(self, messages: Sequence[Message], name: str, options: Mapping[str, Any] = _NOTHING) -> Mapping[str, Any]:
        """`input_ids` and `assistant_masks` of the turns, for a template with {% generation %} blocks."""
        plain, arguments = self.turns(messages, name), self.arguments(options)
        return self._applied(
            plain, arguments, name, tokenize=True, return_dict=True, return_assistant_tokens_mask=True,
            tokenizer_kwargs={"verbose": False},
        )  # fmt: skip

    def _applied(self, plain: list[dict[str, Any]], arguments: Mapping[str, Any], name: str, **how: Any) -> Any:
        """What the tokenizer makes of the turns. Some templates want the arguments of a call as text, others as an object."""
        forms = [plain, [_as_text(m) for m in plain]] if any("tool_calls" in m for m in plain) else [plain]
        errors = []
        for form in forms:
            try:
                return self._tokenizer.apply_chat_template(form, **how, **arguments)
            except Exception as error:  # a template may raise anything; jinja's own errors share no useful base
                errors.append(error)
        roles = ", ".join(m["role"] for m in plain)
        raise UserError(f"the chat template refuses the turns ({roles}): {errors[0]}", where=f"prompt {name}") from errors[0]


def _as_text(turn: dict[str, Any]) -> dict[str, Any]:
    """The turn with the arguments of its calls as JSON text."""
    if "tool_calls" not in turn:
        return turn
    calls = []
    for call in turn["tool_calls"]:
        given = call["function"]["arguments"]
        text = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
        calls.append({**call, "function": {**call["function"], "arguments": text}})
    return turn | {"tool_calls": calls}
