"""Sampling with an engine that holds a copy of the policy's weights: kept up to date, checked, started again when it dies."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from evenhand.engines.checks import Renders, no_tokens
from evenhand.engines.decode_batch import DecodeRow, Sampled
from evenhand.engines.local import HasModel, LocalEngine
from evenhand.engines.recompute import (
    Discrepancy,
    check_same_texts,
    check_same_weights,
    recomputed,
    together,
    tolerance_for,
)
from evenhand.engines.rows import asked, completion, grouped
from evenhand.engines.weights import export, version
from evenhand.errors import UserError
from evenhand.models.artifacts import readable_by_all
from evenhand.models.decode import not_a_number
from evenhand.seeding import keyed
from evenhand.types import Completion, Finish, Group, Prompt, Sampling

PROBES, PROBE_TOKENS = 4, 16
"""Before every call so many of its prompts are answered, with so many tokens at most, to be recomputed."""
LAST = 4
"""Answers that are looked at after a call: somebody else may have given it other weights meanwhile."""
PROBE_TEMPERATURES = (1.0, 0.5)
"""In turn. At 1 alone, log-probs that were taken before the temperature would look right."""
_log = logging.getLogger(__name__)


class EngineDied(Exception):
    """It cannot be reached, or was away for a while: whose weights it holds is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineAnswer:
    """One sampled row. `tokens` and `logp` [len(tokens)] are None of an engine that only says the text."""

    finish: Finish
    tokens: tuple[int, ...] | None = None
    logp: tuple[float, ...] | None = None
    text: str = ""


class InferenceBackend(Protocol):
    """A sampler with weights of its own."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    @property
    def holds(self) -> str:
        """The version of the weights that this process gave it last; empty where somebody else may have come between."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Inside, nobody else changes its weights."""
        ...

    def load(self, folder: Path, version: str) -> None:
        """Takes the weights of a folder and forgets every cached prefix. Raises: EngineDied."""
        ...

    def answers(
        self, prompts: Sequence[Sequence[int]], rows: Sequence[DecodeRow], stop_ids: Sequence[int], done: Callable[[int], None]
    ) -> list[EngineAnswer]:
        """One answer per row, in order; row r continues `prompts[rows[r].prompt]`. Raises: EngineDied."""
        ...

    def restart(self) -> None:
        """Opens it again after it died; `holds` is empty afterwards."""
        ...


@dataclass(kw_only=True)
class SyncedEngine:
    """Samples with `backend`, from `policy` as it is at the moment of the call. See `evenhand.protocols.Engine`.

    Where the weights differ from those that the backend was given last, it loads them. Before every call a few of its log-probs
    are recomputed by the policy: a backend that should have the weights and has not is given them again, and a call is refused
    where log-probs differ after a load by more than `tolerance` nats a token on average (None: what rounding explains in the
    precision of the weights). Where the backend dies it is opened again, given the current weights, checked, and asked for the
    whole call anew, `restarts` times in a call. Random numbers are keyed by prompt and completion, as `LocalEngine`'s, but
    drawn by the backend: other tokens.
    """

    policy: HasModel
    renderer: Renders
    backend: InferenceBackend
    tolerance: float | None = None
    restarts: int = 2
    hand_over: Callable[[Any, Path], None] = export
    """Writes what the backend loads of a policy into a folder."""
    folder: str | None = None
    """Where weights are handed over: a place that the backend sees too. None: this machine's folder for temporary files."""
    syncs: int = field(default=0, init=False)

    def generate(
        self,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling | Sequence[Sampling],
        *,
        max_prompt: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Group]:
        """One group of n completions per prompt, in order."""
        ids, rows = asked(self.renderer, prompts, n, sampling, max_prompt)
        return grouped(prompts, n, [self._completion(a) for a in self._answered(ids, rows, progress)])

    def sample(
        self, prompts: Sequence[Sequence[int]], rows: Sequence[DecodeRow], *, progress: Callable[[int, int], None] | None = None
    ) -> list[Sampled]:
        """The token level: one `Sampled` per row, in order. Raises: UserError for a backend that says the text alone."""
        return [_as_tokens(self.backend.name, answer) for answer in self._answered(prompts, rows, progress)]

    def _answered(
        self,
        ids: Sequence[Sequence[int]],
        rows: Sequence[DecodeRow],
        progress: Callable[[int, int], None] | None,
    ) -> list[EngineAnswer]:
        if not rows:
            return []

        def done(rows_done: int) -> None:
            if progress is not None:
                progress(rows_done, len(rows))

        def once() -> list[EngineAnswer]:
            with self.backend.alone():
                self._bring_up_to_date(ids, max(row.sampling.max_tokens for row in rows))
                found = self._answers(ids, rows, done)
                self._check_last(ids, rows, found)
                return found

        return self._surviving(once)

    def _answers(
        self, ids: Sequence[Sequence[int]], rows: Sequence[DecodeRow], done: Callable[[int], None] = lambda done: None
    ) -> list[EngineAnswer]:
        stop_ids = sorted(self.renderer.stop_ids)
        found = self.backend.answers(ids, rows, stop_ids, done)
        for row, answer in zip(rows, found, strict=True):
            _refuse_unusable(self.backend.name, row.sampling, answer, stop_ids)
        return found

    def _surviving(self, ask: Callable[[], list[EngineAnswer]]) -> list[EngineAnswer]:
        """What `ask` returns; asked again where the backend dies and comes back."""
        for attempt in count(1):
            try:
                return ask()
            except EngineDied as died:
                if attempt > self.restarts:
                    raise UserError(
                        f"{self.backend.name} died: {died}", where="engine",
                        why=f"it was opened again {self.restarts} times in one call; what was done before the call is kept",
                        fix="see its own log; when it runs again, the same command goes on from the last checkpoint",
                    ) from None  # fmt: skip
                _log.warning("%s died (%s): it is opened again and given the current weights", self.backend.name, died)
                self.backend.restart()
        raise AssertionError("the attempts have an end")

    def _bring_up_to_date(self, ids: Sequence[Sequence[int]], limit: int) -> None:
        """Gives the backend the policy's weights unless it still holds them, and checks that it does."""
        own = version(self.policy.hf)
        if self.backend.holds == own and self._still_holds(ids, limit):
            return
        with tempfile.TemporaryDirectory(prefix="weights-", dir=self.folder) as parent:
            folder = Path(parent) / own
            self.hand_over(self.policy, folder)
            readable_by_all(Path(parent))  # whoever serves may be another user
            self.backend.load(folder, own)
        self.syncs += 1
        try:
            self._check(ids, limit)
        except UserError:
            self.backend.restart()  # what is not the policy is not held
            raise

    def _still_holds(self, ids: Sequence[Sequence[int]], limit: int) -> bool:
        """Whether the weights of an earlier call are still there: a server started again between two calls has its own."""
        try:
            self._check(ids, limit)
        except UserError:
            _log.warning("%s no longer has the weights that it was given: it is given them again", self.backend.name)
            return False
        return True

    def _check(self, ids: Sequence[Sequence[int]], limit: int) -> None:
        rows = [self._probe(n, PROBE_TEMPERATURES[n % len(PROBE_TEMPERATURES)], limit) for n in range(min(PROBES, len(ids)))]
        rows = rows if len(rows) > 1 else [self._probe(0, t, limit) for t in PROBE_TEMPERATURES]
        found = self._answers(ids, rows)
        told = [(row, _as_tokens(self.backend.name, a)) for row, a in zip(rows, found, strict=True) if a.tokens is not None]
        if not told:
            self._check_text(ids, limit)
            return
        hf = self.policy.hf
        seen = together([recomputed(hf, ids[r.prompt], s.tokens, s.logp, temperature=r.sampling.temperature) for r, s in told])
        temperatures = [r.sampling.temperature for r, s in told for _ in s.tokens]
        check_same_weights(seen.apart, self._allowed(seen), engine=self.backend.name, temperatures=temperatures)

    def _check_last(self, ids: Sequence[Sequence[int]], rows: Sequence[DecodeRow], found: Sequence[EngineAnswer]) -> None:
        """Raises EngineDied where the ends of the last answers are not the policy's.

        Greedy answers and those of a cut distribution tell nothing, nor do a few tokens.
        """
        told = [
            (ids[row.prompt], answer, row.sampling.temperature) for row, answer in zip(rows, found, strict=True)
            if answer.tokens and row.sampling.temperature > 0 and not row.sampling.truncates
        ]  # fmt: skip
        parts = []
        for prompt, answer, temperature in told[-LAST:]:
            tokens, logp = answer.tokens or (), answer.logp or ()
            before, end, said = [*prompt, *tokens[:-PROBE_TOKENS]], tokens[-PROBE_TOKENS:], logp[-PROBE_TOKENS:]
            parts.append(recomputed(self.policy.hf, before, end, said, temperature=temperature))
        if sum(len(part.apart) for part in parts) < PROBE_TOKENS:
            return
        seen = together(parts)
        if not float(seen.apart.mean()) <= self._allowed(seen):
            raise EngineDied("it answered with other weights than it was given: another run uses it as well")

    def _check_text(self, ids: Sequence[Sequence[int]], limit: int) -> None:
        rows = [self._probe(n, 0.0, limit) for n in range(min(PROBES, len(ids)))]
        found = self._answers(ids, rows)
        own = LocalEngine(self.policy, self.renderer).sample(ids, rows)
        check_same_texts([a.text for a in found], [self.renderer.decode(s.tokens) for s in own], engine=self.backend.name)

    def _allowed(self, seen: Discrepancy) -> float:
        return tolerance_for(self.policy.hf, seen.largest) if self.tolerance is None else self.tolerance

    def _probe(self, prompt: int, temperature: float, limit: int) -> DecodeRow:
        sampling = Sampling(temperature=temperature, max_tokens=min(PROBE_TOKENS, limit), seed=keyed("probe"))
        return DecodeRow(prompt=prompt, key=("probe", prompt), sampling=sampling)

    def _completion(self, answer: EngineAnswer) -> Completion:
        if answer.tokens is not None:
            return completion(self.renderer, _as_tokens(self.backend.name, answer))
        return Completion(content=answer.text, finish=Finish.LENGTH if answer.finish is Finish.LENGTH else Finish.GIVEN)


def _as_tokens(engine: str, answer: EngineAnswer) -> Sampled:
    if answer.tokens is None or answer.logp is None:
        raise no_tokens(engine)
    return Sampled(answer.tokens, answer.logp, answer.finish)


def _refuse_unusable(engine: str, sampling: Sampling, answer: EngineAnswer, stop_ids: Sequence[int]) -> None:
    """Raises UserError for tokens that are not what would have been sampled here."""
    if answer.tokens is None:
        return
    if not all(map(math.isfinite, answer.logp or ())):
        raise not_a_number()
    count, most, ends = len(answer.tokens), sampling.max_tokens, [t in stop_ids for t in answer.tokens]
    fix = "use a server that answers as vLLM 0.32 does; see docs/engines.md"
    if count > most:
        problem = f"{count} tokens came back, {most} were asked for"
    elif any(ends[:-1]):
        problem = "an answer goes on after a stop token"
    elif answer.finish is Finish.STOP and not ends[-1]:
        problem = f"an answer ended by a stop, and its last token, {answer.tokens[-1]}, is no stop token"
    elif answer.finish is Finish.LENGTH and count < most:
        problem = f"an answer was cut after {count} tokens, {most} were asked for"
        fix = "give the engine room for a prompt and its answer (vLLM's `max_model_len`), or lower max_tokens or max_prompt"
    else:
        return
    raise UserError(f"{engine}: {problem}", where="engine", why="what is learned from has to be what was sampled", fix=fix)


@cache
def this_process() -> str:
    """A name that no other process has."""
    import uuid

    return uuid.uuid4().hex
