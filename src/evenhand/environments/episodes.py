"""Answers over several turns: an engine writes the model's turns, an environment answers between them.

The tokens of an answer are those that were sampled and, between them, what the chat template writes of the environment's turns.
Nothing is tokenised a second time: each further turn continues the very ids of the turns before it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, TypeVar, runtime_checkable

from evenhand.data.foreign import special_marks
from evenhand.data.values import shown
from evenhand.display import spelled_out
from evenhand.engines.checks import Renders, per_completion, prompt_ids
from evenhand.engines.decode_batch import DecodeRow, Sampled
from evenhand.environments.registry import Settings, TurnLimits, build, limits_of
from evenhand.errors import UserError
from evenhand.protocols import Action, Engine, Environment, Reply
from evenhand.rewards.time_limit import waiting_for
from evenhand.seeding import keyed
from evenhand.types import Completion, Finish, Group, Message, Prompt, Sampling, Turn

T = TypeVar("T")
_log = logging.getLogger(__name__)


@runtime_checkable
class ContinuesTokens(Protocol):
    """An engine that can go on from token ids: what answers of several turns need of it."""

    def sample(
        self, prompts: Sequence[Sequence[int]], rows: Sequence[DecodeRow], *, progress: Callable[[int, int], None] | None = None
    ) -> list[Sampled]:
        """One `Sampled` per row, in order; row r continues the token ids `prompts[rows[r].prompt]`."""
        ...


class RendersTurns(Renders, Protocol):
    """What answers of several turns need of `evenhand.data.template.Renderer`."""

    tokenizer: Any

    def between(self, prompt: Prompt, replies: Sequence[Sequence[Message]]) -> list[tuple[int, ...]]: ...


def in_environment(engine: Engine, settings: Settings | None, renderer: RendersTurns) -> Engine:
    """The engine, whose answers are written in an environment; as it is where `settings` are None.

    Raises: UserError for an engine that cannot continue token ids.
    """
    if settings is None:
        return engine
    if not isinstance(engine, ContinuesTokens):
        raise UserError(
            f"the engine {type(engine).__name__} cannot continue an answer", where="environment",
            why="a further turn goes on from the token ids of those before it",
            fix="use `engine: local`, or give the engine a method `sample(prompts, rows)` of token ids",
        )  # fmt: skip
    return EpisodeEngine(engine=engine, renderer=renderer, settings=settings)


@dataclass(kw_only=True)
class Episode:
    """One answer under way. `ids` and `logp` are those of all its turns so far."""

    prompt: Prompt
    place: int
    key: tuple[str, int]
    sampling: Sampling
    environment: Environment | None = None
    """None where it could not be made; such an answer has `failed`."""
    turns: list[Turn] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    finish: Finish = Finish.STOP
    failed: str = ""

    @property
    def room(self) -> int:
        """Tokens that are left of the whole answer's limit."""
        return self.sampling.max_tokens - len(self.ids)

    def add(self, turn: Turn, ids: Sequence[int], logp: Sequence[float]) -> None:
        self.turns.append(turn)
        self.ids += ids
        self.logp += logp

    def completion(self) -> Completion:
        last = next(turn for turn in reversed(self.turns) if turn.written)
        return Completion(
            content=last.messages[0].content, tokens=tuple(self.ids), behaviour_logp=tuple(self.logp), finish=self.finish,
            turns=tuple(self.turns), failed=self.failed,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class EpisodeEngine:
    """Samples answers of up to `turns` turns. See `evenhand.protocols.Engine`; `max_tokens` limits the whole answer.

    All answers take their next turn together. Random numbers are keyed by prompt, completion and turn, the first turn's as
    those of an answer without an environment. An environment that raises, or takes longer than its limit, ends its own answer,
    which says so in `failed`.
    """

    engine: ContinuesTokens
    renderer: RendersTurns
    settings: Settings

    @cached_property
    def marks(self) -> tuple[str, ...]:
        """How the tokenizer's special tokens are written, which no reply may spell."""
        return special_marks(self.renderer.tokenizer)

    def generate(
        self,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling | Sequence[Sampling],
        *,
        max_prompt: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Group]:
        """One group of `n` completions per prompt, in order, each with its turns; the prompts as the environment shows them."""
        limits = limits_of(self.settings)
        episodes = self._begun(prompts, per_completion(n, sampling), limits)
        shown = [self._shown(prompt, episodes[i * n : (i + 1) * n]) for i, prompt in enumerate(prompts)]
        ids = [prompt_ids(self.renderer, prompt, max_prompt) for prompt in shown]
        live = episodes
        for turn in range(limits.turns):
            if not live:
                break
            written = self._written(live, ids, turn, limits)
            live = [e for e, w in zip(live, written, strict=True) if self._goes_on(e, w, shown, limits, turn + 1 == limits.turns)]
            if progress is not None:
                progress(len(episodes) - len(live), len(episodes))
        self._say_failed(episodes)
        done = [e.completion() for e in episodes]
        return [Group(prompt=prompt, completions=tuple(done[i * n : (i + 1) * n])) for i, prompt in enumerate(shown)]

    def _begun(self, prompts: Sequence[Prompt], each: Sequence[Sampling], limits: TurnLimits) -> list[Episode]:
        seen: dict[str, int] = {}
        episodes = []
        for place, prompt in enumerate(prompts):
            first = seen.get(prompt.id, 0)
            seen[prompt.id] = first + len(each)
            for number, sampling in enumerate(each, first):
                key = (prompt.id, number)
                begun = Episode(prompt=prompt, place=place, key=key, sampling=sampling)
                self._begin(begun, limits)
                episodes.append(begun)
        return episodes

    def _begin(self, e: Episode, limits: TurnLimits) -> None:
        """Makes the answer's environment, and the prompt as it shows it. UserError where no answer could have one."""
        try:
            e.environment = build(self.settings, seed=keyed(e.sampling.seed, "environment", *e.key))
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            _fail(e, error)
            return
        reset = e.environment.reset
        e.prompt = self._asked(e, limits, lambda: checked_prompt(reset(e.prompt))) or e.prompt

    def _shown(self, prompt: Prompt, episodes: Sequence[Episode]) -> Prompt:
        """The prompt of a group as its environments show it; where one could not begin, as the others do."""
        shown = next((e.prompt for e in episodes if not e.failed), prompt)
        for episode in episodes:
            if not episode.failed and episode.prompt != shown:
                raise UserError(
                    "the environment begins differently for two answers to one prompt", where=f"prompt {prompt.id}",
                    why="answers to one prompt are compared with each other, and share its tokens",
                    fix="let `reset` depend on the prompt alone",
                )  # fmt: skip
        return replace(shown, id=prompt.id)

    def _written(self, live: Sequence[Episode], ids: Sequence[list[int]], turn: int, limits: TurnLimits) -> list[Sampled]:
        """The next turn of the model in every answer that goes on."""
        rows = []
        for at, e in enumerate(live):
            seed = keyed(e.sampling.seed, "turn", turn) if turn else e.sampling.seed
            most = min(e.room, limits.turn_tokens or e.room)
            prompt = at if turn else e.place
            rows.append(DecodeRow(prompt=prompt, key=e.key, sampling=replace(e.sampling, seed=seed, max_tokens=most)))
        return self.engine.sample([[*ids[e.place], *e.ids] for e in live] if turn else ids, rows)

    def _goes_on(self, e: Episode, written: Sampled, shown: Sequence[Prompt], limits: TurnLimits, last: bool) -> bool:
        """Takes the model's turn and the environment's answer to it; False where the answer ends here."""
        cut = written.finish is Finish.LENGTH
        text = self.renderer.decode(written.tokens)
        e.add(
            Turn(messages=(Message("assistant", text),), tokens=len(written.tokens), written=True), written.tokens, written.logp
        )
        if e.environment is None or e.failed:  # it could not begin
            e.finish = written.finish
            return False
        step, action = e.environment.step, Action(text, last=cut or last)
        reply = self._asked(e, limits, lambda: checked(step(action), cut or last, self.marks))
        if reply is None:
            e.finish = written.finish
            return False
        e.turns[-1] = replace(e.turns[-1], reward=reply.reward)
        e.finish = Finish.LENGTH if cut or (last and not reply.done) else Finish.STOP
        if reply.done or cut or last:
            return False
        piece = self._piece(e, shown[e.place], reply)
        if len(piece) >= e.room:
            e.finish = Finish.LENGTH
            return False
        e.add(Turn(messages=reply.messages, tokens=len(piece), written=False), piece, (0.0,) * len(piece))
        return True

    def _piece(self, e: Episode, shown: Prompt, reply: Reply) -> tuple[int, ...]:
        """The ids between this turn of the model and its next; those between earlier turns must be what they were."""
        told = [turn.messages for turn in e.turns if not turn.written]
        *before, piece = self.renderer.between(shown, [*told, reply.messages])
        at, held = 0, []
        for turn in e.turns:
            held += [] if turn.written else [tuple(e.ids[at : at + turn.tokens])]
            at += turn.tokens
        if before != held:
            raise UserError(
                "the chat template writes earlier turns of the environment otherwise once later ones follow",
                where=f"prompt {shown.id}", why="the model would read what it was not shown",
                fix="use a template that keeps turns as they are",
            )  # fmt: skip
        return piece

    def _asked(self, e: Episode, limits: TurnLimits, call: Callable[[], T]) -> T | None:
        """What the environment returns; None where it raises or takes too long, which costs this answer alone."""
        late = ("no reply", "make the environment faster, or give it more time: `environment: {seconds: ...}`")
        try:
            with waiting_for(f"the environment, prompt {e.key[0]}", limits.seconds, late=late):
                return call()
        except (Exception, SystemExit) as error:  # somebody else's program: whatever it raises costs its own answer
            _fail(e, error)
            return None

    def _say_failed(self, episodes: Sequence[Episode]) -> None:
        if failed := [e for e in episodes if e.failed]:
            first = failed[0]
            _log.warning(
                "the environment failed in %d of %d answers, which have no score (first: prompt %s, %s)",
                len(failed), len(episodes), first.key[0], first.failed,
            )  # fmt: skip


def _fail(e: Episode, error: BaseException) -> None:
    e.failed = spelled_out(f"{type(error).__name__}: {error}")
    _log.debug("the environment of prompt %s failed", e.key[0], exc_info=error)


def checked_prompt(prompt: Any) -> Prompt:
    """What `reset` returned, if it is a prompt."""
    if not isinstance(prompt, Prompt):
        raise TypeError(f"reset returned {type(prompt).__name__}, not a Prompt")
    return prompt


def checked(reply: Any, last: bool, marks: Sequence[str] = ()) -> Reply:
    """The reply, if it is one. Raises what it lacks; an environment that neither ends nor says anything would leave the model's
    turn unanswered, and a reward without an end would spoil every answer that it is compared with. A reply that spells one of the
    `marks` of the tokenizer (what a tool read on a page, say) could open a turn of its own."""
    if not isinstance(reply, Reply):
        raise TypeError(f"step returned {type(reply).__name__}, not a Reply")
    if reply.done not in (True, False):
        raise TypeError(f"done is {shown(reply.done)}, not true or false")
    if not math.isfinite(reward := float(reply.reward)):
        raise ValueError(f"the reward of a turn is {reward}")
    messages = tuple(reply.messages)
    for message in messages:
        _check_message(message, marks)
    if not (reply.done or last or messages):
        raise ValueError("the environment is not done and says nothing")
    return replace(reply, messages=messages, reward=reward, done=bool(reply.done))


def _check_message(message: Any, marks: Sequence[str]) -> None:
    if not isinstance(message, Message) or not isinstance(message.content, str) or not isinstance(message.role, str):
        raise TypeError(f"messages hold {shown(message)}, not a Message of text")
    message.content.encode()  # raises for half a character, which no tokenizer reads
    if spelled := [mark for mark in marks if mark in message.content]:
        raise ValueError(f"a message spells the special token {shown(spelled[0])}")
