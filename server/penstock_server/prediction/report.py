"""What the request path tells whoever counts: facts, once a batch or a refusal, and nothing of how they are kept."""

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock_server import errors
from penstock_server.errors import PenstockError

_REASONS: Final[dict[type[PenstockError], str]] = {
    errors.InvalidInputError: "invalid_input",
    errors.OverloadedError: "overloaded",
    errors.DeadlinePassedError: "deadline",
    errors.ModelFailedError: "model_failed",
    errors.NotReadyError: "not_ready",
    errors.NotFoundError: "not_found",
    errors.UnsupportedError: "unsupported",
}


def refusal_reason(error: PenstockError) -> str:
    """The reason under which a refusal with this error is counted."""
    return _REASONS.get(type(error), "internal")


class RefusalReport(Protocol):
    """Counts requests that got no answer."""

    def refused(self, reason: str, requests: int = 1) -> None:
        """That many requests were refused or left, by reason."""


class VersionReport(RefusalReport, Protocol):
    """Counts what one version did; durations are seconds, times are of the monotonic clock."""

    def batch(
        self,
        *,
        arrived_s: Sequence[float],
        rows: int,
        started_s: float,
        ended_s: float,
        features_s: float,
        infer_s: float,
    ) -> None:
        """A batch was answered."""

    def classes(self, labels: NDArray[np.int64]) -> None:
        """The predicted class of each row."""

    def scores(self, values: NDArray[Any]) -> None:
        """The output of each row, of a version without classes."""

    def waiting(self, rows: int, requests: int) -> None:
        """What waits in the queue now."""

    def drift_cells(self) -> NDArray[np.int64] | None:
        """Where a pipeline counts its rows."""

    def drift_counted(self, rows: int) -> None:
        """Rows were added there."""

    def shadow_compared(
        self, *, agree: NDArray[np.bool_], distance: NDArray[np.float64], champion_s: float, shadow_s: float
    ) -> None:
        """This version, as shadow, ran a batch that the champion had answered."""

    def shadow_failed(self, rows: int) -> None:
        """This version, as shadow, raised."""

    def shadow_dropped(self, reason: str, rows: int) -> None:
        """Rows were not copied to this version."""


class RequestLog(Protocol):
    """Keeps a sample of what one version answered."""

    def offer(self, items: Sequence[Any], answered: Sequence[Any], arrays: Sequence[NDArray[Any]]) -> None:
        """A batch ran: its predictions in the order of its rows, those that got their answer, and the outputs."""
