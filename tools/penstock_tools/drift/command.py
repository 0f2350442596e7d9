"""What `penstock drift` does once its options are read: asks, and shows, watches or writes."""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from penstock_server.drift.report import VersionDrift
from penstock_server.errors import InvalidInputError, PenstockError, UnavailableError
from penstock_tools.drift import fetch as source
from penstock_tools.drift import format as words
from penstock_tools.drift import table as screen

WATCH_S: Final = 2.0
DRIFTED: Final = 3
"""The exit code for drift, when it is asked for: apart from that of a failure and of a wrong command line."""

Ask = Callable[[], VersionDrift]


def asking(server: str, model: str, version: str) -> Ask:
    """A function that asks a server for a version's drift now; it raises as `source` does."""
    return lambda: source.version_of(source.fetch(server, model), model, version)


def show(version: VersionDrift, feature: str | None = None) -> None:
    """Prints a version, or one of its features in full.

    Raises:
        NotFoundError: it has no such feature.
    """
    from rich.console import Console

    console = Console()
    console.print(_drawn(version, feature, console.width))


def as_json(version: VersionDrift, feature: str | None = None) -> str:
    """The version's record, or its feature's, indented; what cannot be said is null."""
    record = version if feature is None else screen.named(version, feature)
    return msgspec.json.format(msgspec.json.encode(record), indent=2).decode()


def watch(ask: Ask, feature: str | None = None, *, interval_s: float = WATCH_S) -> None:
    """Shows a version live until Ctrl-C; a server that is away for a while is said to be.

    Raises:
        PenstockError: it cannot be shown even once.
    """
    from rich.console import Console
    from rich.live import Live

    console = Console()
    first = _drawn(ask(), feature, console.width)
    with Live(first, console=console, auto_refresh=False) as live:
        try:
            for frame in frames(ask, feature, (console.width for _ in pauses(interval_s))):
                live.update(frame, refresh=True)
        except KeyboardInterrupt:
            return


def pauses(interval_s: float) -> Iterator[None]:
    """One after each interval, for ever."""
    while True:
        time.sleep(interval_s)
        yield


def frames(ask: Ask, feature: str | None, widths: Iterable[int]) -> Iterator[Any]:
    """What to show each time that a terminal of some width wants it: the version anew, or why it is not known now."""
    from rich.text import Text

    for width in widths:
        try:
            yield _drawn(ask(), feature, width)
        except PenstockError as error:
            yield Text(str(error), style="yellow")


def _drawn(version: VersionDrift, feature: str | None, width: int) -> Any:
    return screen.overview(version, width) if feature is None else screen.feature(version, feature)


def write(file: Path, content: str) -> None:
    """Writes a report.

    Raises:
        UnavailableError: the file cannot be written.
    """
    try:
        file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise UnavailableError(f"{file} cannot be written: {error.strerror}") from error


def exit_code(version: VersionDrift, *, fail_on_drift: bool) -> int:
    """0, or `DRIFTED` when a feature or the answers drifted and that is to fail."""
    return DRIFTED if fail_on_drift and words.has_drifted(version) else 0


def check_choice(**chosen: bool) -> None:
    """Refuses options that exclude each other.

    Raises:
        InvalidInputError: more than one is chosen.
    """
    names = [f"--{name}" for name, is_chosen in chosen.items() if is_chosen]
    if len(names) > 1:
        raise InvalidInputError(f"{' and '.join(names)} exclude each other; choose one")
