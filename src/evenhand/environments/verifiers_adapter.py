"""Environments of the `verifiers` library, whose protocol is asynchronous and counts turns in a dictionary of its own.

Written against its multi-turn interface as its documentation and source describe it (`setup_state`, `is_completed`,
`env_response`, `rubric.score_rollout`), and tested against a stand-in with that interface, NOT run with the library itself.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from evenhand.environments.tool_calls import tool_calls
from evenhand.errors import UserError
from evenhand.protocols import Action, Reply
from evenhand.types import Message, Prompt


def load(name: str, options: Mapping[str, Any]) -> Any:
    """`verifiers.load_environment(name, **options)`, once per process. Raises UserError where the library is not installed."""
    return _load(name, json.dumps(options, sort_keys=True))


@lru_cache(maxsize=8)
def _load(name: str, options: str) -> Any:
    try:
        import verifiers
    except ImportError as missing:
        raise UserError(
            "verifiers is not installed", where="environment", why=str(missing), fix="pip install verifiers, and the environment"
        ) from missing
    return verifiers.load_environment(name, **json.loads(options))


@dataclass(slots=True)
class VerifiersEnvironment:
    """One rollout of the environment `source`. Its rubric's reward is given once, with the last turn.

    The prompt's `meta` gives `answer`, `info` and `task` as a row of the environment's own data set would; a system prompt of the
    environment's is put first where the prompt has none. Tool calls are read off the text (`tool_calls`).
    """

    source: Any
    state: dict[str, Any] = field(default_factory=dict)

    def reset(self, prompt: Prompt) -> Prompt:
        if isinstance(prompt.content, str):
            raise UserError("a text prompt has no turns", where=f"prompt {prompt.id}", fix="give prompts as conversations")
        system, turns = getattr(self.source, "system_prompt", None), prompt.content
        if system and not any(m.role == "system" for m in turns):
            turns = (Message("system", system), *turns)
        told = [m.as_dict() for m in turns]
        meta = {key: prompt.meta[key] for key in ("answer", "info", "task") if key in prompt.meta}
        state = {
            "prompt": told, "completion": [], "responses": [], "trajectory": [], "turn": 0, "is_completed": False, "answer": "",
            "info": {}, "task": "default", "example_id": prompt.id, "reward": None, "metrics": None, "timing": {}, **meta,
        }  # fmt: skip
        set_up = _result(self.source.setup_state(state))
        self.state = state if set_up is None else set_up
        tools = getattr(self.source, "oai_tools", None)
        options = {**prompt.options, "tools": list(tools)} if tools else prompt.options
        return replace(prompt, content=turns, options=options)

    def step(self, action: Action) -> Reply:
        said: dict[str, Any] = {"role": "assistant", "content": action.text}
        if calls := tool_calls(action.text):
            said["tool_calls"] = calls
        state = self.state
        state["trajectory"].append({"prompt": [*state["prompt"], *state["completion"]], "completion": [said]})
        state["completion"].append(said)
        state["turn"] += 1
        if action.last or self._completed():
            return Reply(reward=self._reward(), done=True)
        answer = _result(self.source.env_response([*state["prompt"], *state["completion"]], state))
        if isinstance(answer, tuple):  # older versions return the state beside the messages
            answer, self.state = answer
        told = [{"role": "user", "content": answer}] if isinstance(answer, str) else list(answer)
        self.state["completion"] += told
        if self.state.get("final_env_response") or self._completed():
            return Reply(reward=self._reward(), done=True)
        return Reply(tuple(_message(turn) for turn in told))

    def _completed(self) -> bool:
        """Older versions ask with the messages first."""
        asked = self.source.is_completed
        given: Sequence[Any] = (self.state,)
        if len(_positional(asked)) > 1:
            given = ([*self.state["prompt"], *self.state["completion"]], self.state)
        return bool(_result(asked(*given)))

    def _reward(self) -> float:
        self.state["is_completed"] = True
        _result(self.source.rubric.score_rollout(self.state))
        return float(self.state["reward"])


def _positional(function: Any) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in inspect.signature(function).parameters.values() if p.kind in kinds]


def _message(turn: Any) -> Message:
    """A turn as chat messages hold it, or as an object that can be turned into one."""
    row = dict(turn) if isinstance(turn, Mapping) else turn.model_dump(exclude_none=True)
    extra = {key: row[key] for key in ("tool_call_id", "name") if row.get(key)}
    return Message(row["role"], row["content"], extra)


def _result(value: Any) -> Any:
    """What an asynchronous function returns, or a plain one."""
    if not inspect.isawaitable(value):
        return value

    async def whole() -> Any:
        return await value

    return asyncio.run(whole())
