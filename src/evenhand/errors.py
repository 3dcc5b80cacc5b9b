"""The one error a user is meant to read: what, where, why, how to fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from typing_extensions import override

from evenhand.display import spelled_out


class UserError(Exception):
    """Bad input, said once and clearly.

    `what` is the finding, `where` the place (file:line, field, config key), `why` the consequence,
    `fix` the way out. The command line prints the message and exits with 2; it never prints a traceback for it. Messages quote
    data and models: control characters are spelled out.

    >>> print(UserError("learning_rate is -1.0", where="arms.dpo.train", fix="use a positive number"))
    arms.dpo.train: learning_rate is -1.0
      fix: use a positive number
    """

    def __init__(self, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        self.what, self.where, self.why, self.fix = what, where, why, fix
        head = f"{where}: {what}" if where else what
        tail = [f"  why: {why}"] if why else []
        tail += [f"  fix: {fix}"] if fix else []
        super().__init__(spelled_out("\n".join([head, *tail])))

    def placed(self, where: str) -> UserError:
        """The same finding at another place.

        >>> print(UserError("expected a number", where="weight", fix="use 1").placed("mix[0].weight"))
        mix[0].weight: expected a number
          fix: use 1
        """
        return UserError(self.what, where=where, why=self.why, fix=self.fix)

    @override
    def __reduce__(self) -> tuple:  # keyword-only fields survive the trip between worker processes
        return (_rebuild, (type(self), self.what, self.where, self.why, self.fix))


class Pending(UserError):
    """Nothing is wrong: something waits for people. The command line exits with 4, and the same command goes on later."""


def _rebuild(kind: type[UserError], what: str, where: str, why: str, fix: str) -> UserError:
    return kind(what, where=where, why=why, fix=fix)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint naming the closest known words, or all of them when none is close.

    >>> did_you_mean("learing_rate", ["learning_rate", "steps"])
    "did you mean 'learning_rate'?"
    >>> did_you_mean("zzz", ["steps", "seed"])
    "known: 'seed', 'steps'"
    """
    names, word = sorted(set(known)), word[:80]  # the comparison takes the square of the length
    close = difflib.get_close_matches(word, names, n=2, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    return "known: " + ", ".join(f"'{n}'" for n in names)


def one_of(name: str, value: str, known: Iterable[str], *, where: str) -> str:
    """The value, if it is a known word. Raises: UserError with the closest ones.

    >>> one_of("critic", "heads", ("head", "separate"), where="ppo")
    Traceback (most recent call last):
        ...
    evenhand.errors.UserError: ppo: unknown critic 'heads'
      fix: did you mean 'head'?
    """
    if value not in (words := tuple(known)):
        raise UserError(f"unknown {name} '{value}'", where=where, fix=did_you_mean(str(value), words))
    return value
