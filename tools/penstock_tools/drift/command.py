"""What `penstock drift` does once its options are read: fetches the report, then shows, watches or writes it."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from penstock_server.drift.report import VersionDrift
from penstock_server.errors import InvalidInputError, PenstockError
from penstock_tools import output
from penstock_tools.client_commands.connection import PLAIN, Encryption
from penstock_tools.drift import fetch, table

WATCH_S: Final = 2.0
DRIFTED: Final = 3
"""The exit code of --fail-on-drift; 1 is a failure, and 2 a wrong command line."""

Fetch = Callable[[], VersionDrift]


def fetcher(server: str, model: str, version: str, encryption: Encryption = PLAIN) -> Fetch:
    """A function that fetches a version's drift from a server; it raises as `fetch` does."""
    return lambda: fetch.version_of(fetch.fetch(server, model, encryption), model, version)


def show(version: VersionDrift, feature: str | None = None) -> None:
    """Prints a version, or one of its features in full.

    Raises:
        NotFoundError: it has no such feature.
    """
    from rich.console import Console

    console = Console()
    console.print(_drawn(version, feature, console.width))


def as_json(version: VersionDrift, feature: str | None = None) -> str:
    """The version's record, or its feature's, indented; what is not known is null."""
    record = version if feature is None else table.named(version, feature)
    return output.as_json(record)


def watch(fetch_version: Fetch, feature: str | None = None, *, interval_s: float = WATCH_S) -> None:
    """Shows a version live until Ctrl-C; while the server does not answer, the error.

    Raises:
        PenstockError: the first fetch failed.
    """
    from rich.console import Console
    from rich.live import Live

    console = Console()
    first = _drawn(fetch_version(), feature, console.width)
    with Live(first, console=console, auto_refresh=False) as live:
        try:
            for frame in frames(fetch_version, feature, (console.width for _ in pauses(interval_s))):
                live.update(frame, refresh=True)
        except KeyboardInterrupt:
            return


def pauses(interval_s: float) -> Iterator[None]:
    """Yields after each interval, without end."""
    while True:
        time.sleep(interval_s)
        yield


def frames(fetch_version: Fetch, feature: str | None, widths: Iterable[int]) -> Iterator[Any]:
    """What to show at each of the widths: the version as it is now, or why it cannot be shown."""
    from rich.text import Text

    for width in widths:
        try:
            yield _drawn(fetch_version(), feature, width)
        except PenstockError as error:
            yield Text(str(error), style="yellow")


def _drawn(version: VersionDrift, feature: str | None, width: int) -> Any:
    return table.overview(version, width) if feature is None else table.feature(version, feature)


def exit_code(version: VersionDrift, *, fail_on_drift: bool, least_importance: float = 0.0) -> int:
    """`DRIFTED` if `fail_on_drift` is set and there is an alarm that matters, else 0.

    An alarm of the answers matters always. Those of features do if these have such a share of all importance together, or if it
    is not known what they have.
    """
    if not (fail_on_drift and version.alarms):
        return 0
    features = {column.name for column in version.columns}
    share = version.alarmed_importance
    matters = share is None or share >= least_importance or not features.issuperset(version.alarmed or ())
    return DRIFTED if matters else 0


def check_choice(**chosen: bool) -> None:
    """Checks that at most one of these options is chosen.

    Raises:
        InvalidInputError: more than one is chosen.
    """
    names = [f"--{name}" for name, is_chosen in chosen.items() if is_chosen]
    if len(names) > 1:
        raise InvalidInputError(f"{' and '.join(names)} exclude each other; choose one")
