"""What rules look at: what is known of a model's champion at one moment. What is not known is None."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share of right answers, and where it is by 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class SignalledAlarm:
    """A drift alarm that is on.

    Attributes:
        column: "" for the predictions.
        since_s: since when rows have drifted, in seconds since 1970.
    """

    column: str
    since_s: float


@dataclass(frozen=True, slots=True)
class Signals:
    """A model's champion now.

    Attributes:
        model, version: its names.
        identity: of its files; a number may be registered anew.
        versions: all versions of the model that this server knows: another one ends a retraining.
        rows: answered since this process began to count; it may begin anew.
        labels: that have come for its answers; None if none are taken.
        published_s: when it was published, in seconds since 1970.
        accuracy: by labels.
        expected_accuracy: without labels.
        alarms: the drift alarms that are on; None if nothing looks for them.
        alarmed_importance: the share of importance in columns with an alarm.
    """

    model: str
    version: str
    identity: str = ""
    versions: Sequence[str] = ()
    rows: int = 0
    labels: int | None = None
    published_s: float | None = None
    accuracy: Estimate | None = None
    expected_accuracy: Estimate | None = None
    alarms: tuple[SignalledAlarm, ...] | None = None
    alarmed_importance: float | None = None
