"""What went wrong between this machine and the Hugging Face Hub, in one sentence and with the way out."""

from __future__ import annotations

from evenhand.display import hidden
from evenhand.errors import UserError

LINE = 300


def hub_error(error: BaseException, what: str, *, where: str, why: str = "", fix: str = "") -> UserError:
    """A UserError for anything that a call to the Hub raised: `what` failed, and the reason. The user's token is struck out.

    `fix` is for what this machine cannot know better: a wrong name, a missing right.
    """
    reason, own = _reason(error)
    return UserError(f"{what}: {hidden(reason, _token())}", where=where, why=why, fix=own or fix)


def _token() -> list[str]:
    from huggingface_hub import get_token

    return [token] if (token := get_token()) else []


def _reason(error: BaseException) -> tuple[str, str]:
    """(what happened, what to do about it or nothing)."""
    names = {c.__name__ for e in _causes(error) for c in type(e).__mro__}
    status = next(
        (s for e in _causes(error) if isinstance(s := getattr(getattr(e, "response", None), "status_code", None), int)), 0
    )
    first = next(iter(str(error).strip().splitlines()), "")[:LINE] or type(error).__name__
    if "OfflineModeIsEnabled" in names or "OfflineModeIsEnabled" in str(error):
        return "the Hub is switched off (HF_HUB_OFFLINE), and it is not kept here", "unset HF_HUB_OFFLINE, or give a local folder"
    if "GatedRepoError" in names:
        return "it is gated", "ask for access on its page, then `hf auth login`"
    if status == 401 or "LocalTokenNotFoundError" in names:
        return f"the Hub does not know who asks ({first})", ""
    if status == 429 or status >= 500:
        return f"the Hub is busy or broken (HTTP {status})", "try again later; what was done so far is kept"
    if names & {"TimeoutException", "Timeout", "TimeoutError", "ReadTimeout", "ConnectTimeout"}:
        return "the Hub did not answer in time", "check the connection and try again"
    if not status and names & {"ConnectError", "ConnectionError", "NetworkError", "TransportError", "LocalEntryNotFoundError"}:
        return f"the Hub cannot be reached ({first})", "check the name and the connection, or give a local file or folder"
    return first, ""


def _causes(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in found and len(found) < 10:
        found.append(step)
        step = step.__cause__ or step.__context__
    return found
