"""The event that actions send: a model is to be trained anew, and why. The same JSON for all of them.

Its frame is that of Standard Webhooks: `type`, `timestamp`, `data`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from penstock_server.retraining.signals import Estimate, Signals
from penstock_server.retraining.state import RetrainingCall

TYPE: Final = "penstock.retraining.requested"


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """A model is to be trained anew.

    Attributes:
        id: the same however often it is sent.
        time: when the rule called, by RFC 3339.
        model, version: the model, and its champion.
        rule, reason: the rule, and in a sentence why.
        link: to the version in the registry; "" where it has no page.
        rows, labels: that its champion has answered, and that have come for them.
        accuracy, expected_accuracy: with their intervals; absent where they are not known.
        alarms: columns with a drift alarm, and since when, by RFC 3339.
        alarmed_importance: the share of the columns' importance in these.
    """

    id: str
    time: str
    model: str
    version: str
    rule: str
    reason: str
    link: str = ""
    rows: int = 0
    labels: int = 0
    accuracy: Estimate | None = None
    expected_accuracy: Estimate | None = None
    alarms: Mapping[str, str] = {}
    alarmed_importance: float | None = None

    def to_json(self) -> bytes:
        """The event in its frame."""
        return msgspec.json.encode({"type": TYPE, "timestamp": self.time, "data": self})

    def to_builtins(self) -> dict[str, Any]:
        """The event without its frame, as dictionaries and lists."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found


def event_of(call: RetrainingCall, signals: Signals, *, rows: int, labels: int, link: str = "") -> Event:
    """The event of a call."""
    return Event(
        id=call.id,
        time=rfc3339(call.at_s),
        model=signals.model,
        version=call.version,
        rule=call.rule,
        reason=call.reason,
        link=link,
        rows=rows,
        labels=labels,
        accuracy=signals.accuracy,
        expected_accuracy=signals.expected_accuracy,
        alarms={alarm.column: rfc3339(alarm.since_s) for alarm in signals.alarms or ()},
        alarmed_importance=signals.alarmed_importance,
    )


def example(model: str, version: str, at_s: float) -> Event:
    """An event to try an action with, which says that it is one."""
    return Event(
        id=f"test-{int(at_s)}",
        time=rfc3339(at_s),
        model=model,
        version=version,
        rule="test",
        reason="this is a test of the action: nothing calls for retraining",
    )


def rfc3339(seconds: float) -> str:
    """A moment in UTC.

    >>> rfc3339(0.25)
    '1970-01-01T00:00:00.250Z'
    """
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
