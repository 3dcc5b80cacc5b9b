"""Which settings the next trial tries: determined by (seed, arm, trial) and by what earlier trials gave, never by the clock."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evenhand.errors import UserError
from evenhand.seeding import keyed, rng
from evenhand.spec.search_spaces import at, grid, size
from evenhand.spec.tuning import Dimension, SearchRange, Space, Tune
from evenhand.store.fingerprint import canonical
from evenhand.tuning.trials import Settings

History = Sequence[tuple[Settings, float]]
"""Settings and values (higher is better) of the finished trials, in their order; a failed one has the worst value."""
TRIES = 20
"""Draws after which a setting that was not tried yet is looked for in other ways."""


def blind(trials: int) -> int:
    """How many trials of TPE are drawn before it learns from any: half of them, at least two and at most ten.

    >>> [blind(n) for n in (2, 4, 8, 40)]
    [2, 2, 4, 10]
    """
    return min(10, max(2, trials // 2))


def ask(tune: Tune, space: Space, history: History, tried: Sequence[Settings], arm: str) -> dict[str, Any]:
    """The settings of the next trial, none of those in `tried`, determined by (seed, arm, trial) and `history`.

    `grid` goes through the grid in its order; `random` draws; `tpe` (Bergstra et al. 2011) draws where `history` is empty.
    """
    if tune.sampler == "grid":
        return grid(space, tune.trials)[len(tried)]
    key = (tune.seeds[0], arm, len(tried))
    seen = {canonical(dict(settings)) for settings in tried}
    for attempt in range(TRIES):
        if tune.sampler == "tpe" and history:
            found = by_tpe(space, history, keyed("tune", *key, attempt))
        else:
            found = drawn(space, "tune", *key, attempt)
        if canonical(found) not in seen:
            return found
    if size(space) == float("inf"):  # of a range there is always another value
        return drawn(space, "tune", *key, TRIES)
    rest = [settings for settings in grid(space, 0) if canonical(settings) not in seen]
    return rest[int(rng("tune", *key, "rest").integers(len(rest)))]


def drawn(space: Space, *key: str | int) -> dict[str, Any]:
    """Every setting drawn by itself: choices alike, ranges evenly on their own scale."""
    numbers = rng(*key).random(len(space))
    return {name: _at(dimension, u) for (name, dimension), u in zip(space.items(), numbers.tolist(), strict=True)}


def _at(dimension: Dimension, share: float) -> Any:
    return at(dimension, share) if isinstance(dimension, SearchRange) else dimension[int(share * len(dimension))]


def by_tpe(space: Space, history: History, seed: int) -> dict[str, Any]:
    """What Optuna's TPE sampler asks after `history`, rebuilt in memory.

    Raises: UserError where Optuna is not installed.
    """
    try:
        import optuna
    except ImportError:
        fix = "pip install 'evenhand[tune]', or `tune: {sampler: random}`"
        raise UserError("the sampler `tpe` needs Optuna", where="tune.sampler", fix=fix) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {name: _distribution(dimension) for name, dimension in space.items()}
    sampler = optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for settings, value in history:
        params = {n: settings[n] if isinstance(d, SearchRange) else d.index(settings[n]) for n, d in space.items()}
        study.add_trial(optuna.create_trial(params=params, distributions=distributions, value=value))
    params = study.ask(distributions).params
    return {name: _setting(params[name], dimension) for name, dimension in space.items()}


def _distribution(dimension: Dimension) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(dimension, SearchRange):
        return FloatDistribution(*dimension.ends, log=dimension.log is not None)
    return CategoricalDistribution(tuple(range(len(dimension))))


def _setting(coordinate: Any, dimension: Dimension) -> Any:
    if not isinstance(dimension, SearchRange):
        return dimension[coordinate]
    low, high = dimension.ends
    return min(max(float(f"{coordinate:.3g}"), low), high)
