"""Logs events with fields to standard error: lines for people at a terminal, JSON elsewhere.

The server's level and format are in its environment, which every process that it starts inherits. What libraries log by
Python's `logging` comes in the same form, at a bounded rate: it is for Penstock to say what goes wrong for a caller.
"""

import logging
import os
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import structlog

LogLevel = Literal["debug", "info", "warning", "error"]
LogFormat = Literal["auto", "console", "json"]
_LEVELS: Final[tuple[LogLevel, ...]] = ("debug", "info", "warning", "error")
_FORMATS: Final[tuple[LogFormat, ...]] = ("auto", "console", "json")
_Choice = TypeVar("_Choice", LogLevel, LogFormat)

_RANKS: Final = {"debug": 0, "info": 1, "warning": 2, "error": 3}
LEVEL_VARIABLE: Final = "PENSTOCK_LOG_LEVEL"
FORMAT_VARIABLE: Final = "PENSTOCK_LOG_FORMAT"
LIBRARY_LINES: Final = 10
"""How many lines one library may log per minute."""
_MINUTE_S: Final = 60.0
MOST_LINES: Final = 100
"""Lines about a model or a worker that are kept for people who look later."""
_LONGEST: Final = 300
"""Of a field of such a line, in characters."""


@dataclass(frozen=True, slots=True)
class Line:
    """What was logged.

    Attributes:
        at_s: when, in seconds since 1970.
        about: its fields, as text.
    """

    at_s: float
    level: str
    event: str
    about: dict[str, str]


def recent_lines() -> tuple[Line, ...]:
    """The latest lines of this process about a model or a worker, the latest last, also of levels that are not written."""
    return tuple(_recent.lines.copy())


def log_level() -> LogLevel:
    """The level of this process, and of those that it starts."""
    return _chosen(LEVEL_VARIABLE, None, _LEVELS, "info")


def set_level(level: LogLevel) -> None:
    """Logs from this level on, here and in processes that are started from now on; from any thread."""
    os.environ[LEVEL_VARIABLE] = level
    _filter.least = _RANKS[level]


class _Filter:
    """Drops lines below a level, which may change: loggers that were used keep what they were made with."""

    def __init__(self) -> None:
        self.least = _RANKS["info"]

    def __call__(self, _logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if _RANKS.get(method, self.least) < self.least:
            raise structlog.DropEvent
        return event


_filter: Final = _Filter()


class _Recent:
    """Keeps the latest lines that name a model or a worker's slot: others tell of callers and of how the server is set up."""

    def __init__(self) -> None:
        self.lines: deque[Line] = deque(maxlen=MOST_LINES)

    def __call__(self, _logger: object, method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        if _RANKS.get(method, 0) >= _RANKS["info"] and ("model" in event or "slot" in event):
            about = {name: str(value)[:_LONGEST] for name, value in event.items() if name not in {"event", "exc_info"}}
            self.lines.append(Line(time.time(), method, str(event.get("event", ""))[:_LONGEST], about))
        return event


_recent: Final = _Recent()


def configure_logging(level: LogLevel | None = None, format_: LogFormat | None = None) -> None:
    """Sets up logging for this process, and for those that it starts.

    Args:
        level: None takes the environment's, else info.
        format_: likewise; auto is for people at a terminal, and JSON elsewhere.
    """
    _filter.least = _RANKS[_chosen(LEVEL_VARIABLE, level, _LEVELS, "info")]
    shape = _chosen(FORMAT_VARIABLE, format_, _FORMATS, "auto")
    for_people = shape == "console" or (shape == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[
            _recent,
            _filter,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _keep if for_people else structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
            if for_people
            else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    # mlflow would write its own lines, from debug on where it likes to, with tracebacks.
    os.environ.setdefault("MLFLOW_CONFIGURE_LOGGING", "false")
    logging.basicConfig(handlers=[_LibraryLines()], level=logging.WARNING, force=True)


def _chosen(variable: str, given: _Choice | None, known: tuple[_Choice, ...], default: _Choice) -> _Choice:
    """The given value, else the environment's if it is known; kept in the environment."""
    if given is not None:
        os.environ[variable] = given
    found = os.environ.get(variable, default).lower()
    return next((one for one in known if one == found), default)


def _keep(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return event


class _LibraryLines(logging.Handler):
    """Writes what libraries log as events, a few per library and minute, and without their tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self._began_s = time.monotonic()
        self._written: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        library = record.name.partition(".")[0]
        if time.monotonic() - self._began_s > _MINUTE_S:
            self._began_s = time.monotonic()
            self._written.clear()
        self._written[library] += 1
        if self._written[library] > LIBRARY_LINES:
            return
        try:
            text = record.getMessage()
        except Exception:  # noqa: BLE001 - a library's broken message is no reason to fail
            text = str(record.msg)
        error = record.exc_info[1] if record.exc_info else None
        about: dict[str, Any] = {} if error is None else {"error": f"{type(error).__name__}: {error}"[:300]}
        if error is not None and library == "asyncio":
            about["exc_info"] = error  # it tells of our own code, whose bug should be found
        if self._written[library] == LIBRARY_LINES:
            about["more"] = "left out for a minute"
        write = (
            structlog.get_logger(record.name).error
            if record.levelno >= logging.ERROR
            else structlog.get_logger().warning
        )
        write(text[:500], library=library, **about)
