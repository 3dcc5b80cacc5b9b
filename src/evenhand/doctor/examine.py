"""Runs the checks on an experiment and says what stops it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from evenhand.doctor.context import CheckContext
from evenhand.doctor.opened import Unavailable
from evenhand.doctor.registry import CHECKS, Check, Finding, Severity, fail
from evenhand.errors import UserError, did_you_mean
from evenhand.run_experiment import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one check found. `waived` is the reason given in the experiment file; `skipped` says why it could not look."""

    check: Check
    findings: tuple[Finding, ...] = ()
    waived: str = ""
    skipped: str = ""
    seconds: float = 0.0

    def worst(self) -> Severity | None:
        """The gravest severity among the findings; None without any."""
        return next((s for s in Severity if any(f.severity is s for f in self.findings)), None)

    @property
    def blocks(self) -> bool:
        return self.worst() is Severity.FAIL and not self.waived


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The results of every check that was run, in the order of their ids, and the patient they are about."""

    results: tuple[Result, ...]
    patient: CheckContext

    @property
    def ok(self) -> bool:
        return not self.failed

    @property
    def failed(self) -> tuple[Result, ...]:
        """Results that stop a run: failures that nobody has waived."""
        return tuple(r for r in self.results if r.blocks)

    def __getitem__(self, id: str) -> Result:
        return next(r for r in self.results if r.check.id == id)


def examine(
    run: Run, *, quick: bool, only: Iterable[str] = (), progress: Callable[[str], None] = lambda doing: None
) -> Diagnosis:
    """Every check on a prepared experiment; with `quick`, those that take moments; with `only`, those by id.

    Raises UserError when the experiment waives a check that does not exist, or gives no reason.
    """
    waived = dict(run.loaded.value.doctor.waive)
    check_waivers(waived)
    patient = CheckContext(run, quick=quick)
    chosen = [c for _, c in sorted(CHECKS.items(), key=order) if (c.quick or not quick) and (not only or c.id in set(only))]
    results = []
    for number, chosen_check in enumerate(chosen, 1):
        progress(f"{chosen_check.id} {chosen_check.title} ({number} of {len(chosen)} checks)")
        results.append(apply(chosen_check, patient, waived.get(chosen_check.id, "")))
    return Diagnosis(results=tuple(results), patient=patient)


def apply(check: Check, patient: CheckContext, waived: str = "") -> Result:
    """One check on a patient. A user's error that comes out of the look itself is a failure with the error's own words."""
    begun, skipped = time.perf_counter(), ""
    found: list[Finding] = []
    try:
        found.extend(check.look(patient))
    except Unavailable as missing:
        skipped = str(missing)
    except UserError as error:
        found.append(from_error(error))
    seconds = time.perf_counter() - begun
    return Result(check=check, findings=tuple(found), waived=waived, skipped=skipped, seconds=seconds)


def from_error(error: UserError) -> Finding:
    """A user's error as a failure."""
    seen = f"{error.where}: {error.what}" if error.where else error.what
    return fail(seen or str(error), why=error.why, fix=error.fix)


def check_waivers(waived: Mapping[str, str]) -> None:
    """Raises UserError for a waiver of an unknown check, or one without a reason."""
    for id, reason in waived.items():
        if id not in CHECKS:
            raise UserError(f"there is no check '{id}'", where=f"doctor.waive.{id}", fix=did_you_mean(id, CHECKS))
        if not isinstance(reason, str) or not reason.strip():
            raise UserError(
                "a waiver needs a reason", where=f"doctor.waive.{id}", fix=f'for example {id}: "the overlap is meant"'
            )


def order(item: tuple[str, Check]) -> tuple[int, int]:
    id = item[0]
    return "DTMRGB".index(id[0]), int(id[1:])
