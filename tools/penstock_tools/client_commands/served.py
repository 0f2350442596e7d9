"""Waits until a server serves what was promoted, or has stopped serving what was removed; or says why it does not.

`standing` decides from one answer of the server, and `wait` asks until it is settled.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock_server.errors import PenstockError, UnavailableError

INTERVAL_S: Final = 0.5
PATIENCE_S: Final = 3.0
"""How long a server may say that it cannot serve the version before it is believed: fetching may be tried again."""

Status = Mapping[str, Any]
"""What /v1/models answers."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is waited for.

    Attributes:
        version: the version that is to have the role; "" for none.
        role: the role.
        weight: a canary's share in percent; None for other roles.
        former: the version that is to lose the role; "" for whichever has it.
    """

    model: str
    version: str
    role: str
    weight: float | None = None
    former: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far the server is.

    Attributes:
        is_served: it has come to what is waited for.
        has_failed: it says that it cannot.
        sentence: what it is at, or why it cannot.
    """

    is_served: bool
    has_failed: bool
    sentence: str


def standing(status: Status, change: Change) -> Standing:
    """How far a server is that answers so."""
    records = [record for record in status["models"] if record.get("name") == change.model]
    in_role = [record for record in records if record.get("role") == change.role]
    if not change.version:
        in_role = [record for record in in_role if change.former in ("", record.get("version"))]
        left = ", ".join(f"version {record.get('version')}" for record in in_role)
        return Standing(not in_role, False, f"{left} is still {change.role}")
    for record in in_role:
        if record.get("version") == change.version and record.get("state") == "READY" and _has_weight(record, change):
            return Standing(True, False, "")
    own = next((record for record in records if record.get("version") == change.version), None)
    if own is None:
        # A problem of the whole model, such as that it has no champion.
        own = next((record for record in records if not record.get("version")), None)
    if own is None:
        away = next((source for source in status["sources"] if source.get("reason")), None)
        told = f"; {away['name']} is {away['state']}: {away['reason']}" if away else "; does it follow this registry?"
        return Standing(False, False, f"it does not know version {change.version} of {change.model} yet{told}")
    reason = str(own.get("reason") or "")
    has_failed = own.get("state") == "UNAVAILABLE" and bool(reason)
    state = str(own.get("state") or "")
    return Standing(
        False, has_failed, reason if has_failed else f"the version is {state}{f': {reason}' if reason else ''}"
    )


def _has_weight(record: Mapping[str, Any], change: Change) -> bool:
    return change.weight is None or abs(float(record.get("weight") or 0.0) - change.weight) < 1e-6


def wait(
    fetch: Callable[[], Status],
    change: Change,
    *,
    timeout_s: float,
    report: Callable[[str], None],
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Asks the server until it serves the change, and returns the seconds that it took.

    Args:
        fetch: asks the server.
        change: what is waited for.
        timeout_s: seconds until it gives up.
        report: gets a sentence whenever there is a new one.
        clock: monotonic seconds.
        sleep: waits.

    Raises:
        UnavailableError: the server cannot serve it, and says why; or has not by then.
    """
    began_s = clock()
    said, failed_since_s = "", None
    while True:
        found = _asked(fetch, change)
        now_s = clock()
        if found.is_served:
            return now_s - began_s
        failed_since_s = (failed_since_s if failed_since_s is not None else now_s) if found.has_failed else None
        if failed_since_s is not None and now_s - failed_since_s >= min(PATIENCE_S, timeout_s):
            raise UnavailableError(f"the server does not serve it: {found.sentence}")
        if now_s - began_s >= timeout_s:
            raise UnavailableError(f"after {timeout_s:g} s the server does not serve it yet: {found.sentence}")
        if found.sentence != said:
            said = found.sentence
            report(f"waiting for the server: {said}")
        sleep(INTERVAL_S)


def _asked(fetch: Callable[[], Status], change: Change) -> Standing:
    try:
        return standing(fetch(), change)
    except PenstockError as error:
        # It may be restarting.
        return Standing(False, False, str(error))
