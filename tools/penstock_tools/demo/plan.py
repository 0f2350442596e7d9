"""The demo's options, and what follows from them: sizes, times, the server's settings and command line; pure."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock_server.errors import InvalidInputError
from penstock_tools.server_process import PENSTOCK

MODEL: Final = "flights"
MONTHS: Final = tuple(range(4, 13))
"""The months that are streamed; the models are trained on those before."""

CANARY_PERCENT: Final = 10.0
ROWS_PER_REQUEST: Final = 8
IN_FLIGHT: Final = 32
CONNECTIONS: Final = 4
"""More than one, since all calls of one connection go to one worker."""

POLL_S: Final = 1.0
MAX_WINDOW_ROWS: Final = 20_000
"""Three weeks of New York's flights: less than a month, and long enough to average the weather."""

MIN_ROWS: Final = 1_000
SWITCH_TIMEOUT_S: Final = 30.0
"""A promotion that no reply shows within this time has failed."""


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """The demo's options.

    Attributes:
        rows: flights to send, spread evenly over the months.
        seconds: how long the stream lasts, if the machine keeps up.
        workers: the server's processes.
        port: the server's gRPC port; 0 picks a free one.
        keep: leave the server running at the end until Ctrl-C, and keep the folder.
        folder: for the registry, artifacts and logs; None for a temporary one that is deleted at the end.
    """

    rows: int = 240_000
    seconds: float = 45.0
    workers: int = 1
    port: int = 0
    keep: bool = False
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.rows < MIN_ROWS:
            raise InvalidInputError(f"--rows is {self.rows}; expected {MIN_ROWS} or more")
        if not 1 <= self.seconds <= 3600:
            raise InvalidInputError(f"--seconds is {self.seconds:g}; expected 1 to 3600")
        if self.workers < 1:
            raise InvalidInputError(f"--workers is {self.workers}; expected 1 or more")
        if not 0 <= self.port <= 65535:
            raise InvalidInputError(f"--port is {self.port}; expected 0 to 65535")

    @property
    def window_rows(self) -> int:
        """Rows of the server's drift window over all workers: less than one month of the stream, so that months differ."""
        return min(MAX_WINDOW_ROWS, self.rows * 2 // (3 * len(MONTHS)))

    @property
    def settled_rows(self) -> int:
        """Rows that the window must hold before its scores are shown: the weather of a few days looks like drift."""
        return self.window_rows * 3 // 4

    def command(self, *, registry: str, config: Path) -> list[str]:
        """The command line of the server."""
        return [
            *(*PENSTOCK, "serve", "--registry", registry, "--config", str(config)),
            *("--port", str(self.port), "--http-port", "0", "--workers", str(self.workers)),
        ]

    def settings(self) -> str:
        """The server's settings, as TOML."""
        return f"poll_interval_s = {POLL_S}\n\n[drift]\nwindow_rows = {max(10, self.window_rows // self.workers)}\n"


def request_count(rows: int) -> int:
    """The number of requests for this many rows.

    >>> request_count(17)
    3
    """
    return -(-rows // ROWS_PER_REQUEST)


def due_s(request: int, requests: int, seconds: float) -> float:
    """When a request is due, in seconds after the first; all are spread evenly.

    >>> due_s(5, 10, 60.0)
    30.0
    """
    return request / requests * seconds
