"""What `penstock top` does: shows a server live, each version with its traffic between two looks, and what is rolled out.

A look asks the HTTP port for models, rollouts and metrics. Rates, errors and times are those between two looks, over all
workers.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Final

import msgspec

from penstock.names import FAULTS
from penstock_server.errors import InvalidInputError, PenstockError
from penstock_tools.client_commands import http, models
from penstock_tools.client_commands.connection import PLAIN, Encryption
from penstock_tools.formatting import UNKNOWN, number, percent, rate, safe

INTERVAL_S: Final = 1.0
"""From one look to the next."""

Key = tuple[str, str]
"""A model's name and a version's."""


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted of one version.

    Attributes:
        failures: requests that it did not answer by the server's fault.
        latency: the answers that took at most so many seconds, by the bound.
    """

    requests: float
    failures: float
    latency: Mapping[float, float]
    drift_alarm: bool | None


@dataclass(frozen=True, slots=True)
class Look:
    """A server at one moment.

    Attributes:
        at_s: on the monotonic clock.
        status: as `models.fetch` gives it.
        rollouts: the records of /v1/rollouts.
        counts: by version.
        capacity: the used share of the server's capacity; None where it is not known.
    """

    at_s: float
    status: models.Status
    rollouts: list[Mapping[str, Any]]
    counts: Mapping[Key, Counts]
    capacity: float | None


@dataclass(frozen=True, slots=True)
class Line:
    """One version between two looks; None is not known.

    Attributes:
        errors: the share of the requests that the server failed to answer.
        p50_s, p99_s: the bounds that as many answers took at most; None without an answer.
    """

    model: str
    version: str
    roles: tuple[str, ...]
    weight: float | None
    state: str
    requests_per_s: float | None
    errors: float | None
    p50_s: float | None
    p99_s: float | None
    drift_alarm: bool | None


def fetch(url: str, encryption: Encryption = PLAIN) -> Look:
    """Looks at a server; raises as `models.fetch` does."""
    base, at_s = url.rstrip("/"), time.monotonic()
    status = models.fetch(url, encryption)
    try:
        rollouts = msgspec.json.decode(http.get(f"{base}/v1/rollouts", encryption))["rollouts"]
        counts, capacity = counted(http.get(f"{base}/metrics", encryption).decode())
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, PenstockError):
            raise
        raise InvalidInputError(f"{url} does not answer as a Penstock server of this release does") from error
    return Look(at_s, status, rollouts, counts, capacity)


def counted(text: str) -> tuple[dict[Key, Counts], float | None]:
    """The counts of each version that metrics in Prometheus' text tell, and the used share of the capacity."""
    from prometheus_client.parser import text_string_to_metric_families

    requests, failures, alarms = dict[Key, float](), dict[Key, float](), dict[Key, bool]()
    latency, capacity = dict[Key, dict[float, float]](), None
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = sample.labels
            key = (labels.get("model_name", ""), labels.get("model_version", ""))
            match sample.name:
                case "penstock_requests_total":
                    requests[key] = sample.value
                case "penstock_refusals_total" if labels["reason"] in FAULTS:
                    failures[key] = failures.get(key, 0.0) + sample.value
                case "model_prediction_latency_seconds_bucket" if labels["stage"] == "total":
                    latency.setdefault(key, {})[float(labels["le"])] = sample.value
                case "penstock_drift_alarm":
                    alarms[key] = bool(sample.value)
                case "penstock_capacity_ratio":
                    capacity = sample.value
    found = {
        key: Counts(count, failures.get(key, 0.0), latency.get(key, {}), alarms.get(key))
        for key, count in requests.items()
    }
    return found, capacity


def lines(before: Look, after: Look) -> list[Line]:
    """Each version that is wanted or loaded at the second look, with its traffic since the first."""
    records: dict[Key, list[Mapping[str, Any]]] = {}
    for record in after.status["models"]:
        records.setdefault((str(record.get("name")), str(record.get("version") or "")), []).append(record)
    return [_line(key, own, before, after) for key, own in records.items()]


def _line(key: Key, records: list[Mapping[str, Any]], before: Look, after: Look) -> Line:
    first, last = before.counts.get(key), after.counts.get(key)
    per_s = errors = p50_s = p99_s = None
    # A version that is loaded anew begins at zero: what it has counted is not known for this time.
    if first is not None and last is not None and last.requests >= first.requests:
        requests, failures = last.requests - first.requests, max(0.0, last.failures - first.failures)
        per_s = requests / (after.at_s - before.at_s)
        errors = failures / (requests + failures) if requests + failures else None
        within = {bound: count - first.latency.get(bound, 0.0) for bound, count in sorted(last.latency.items())}
        p50_s, p99_s = quantile(0.5, within), quantile(0.99, within)
    weight = next((record["weight"] for record in records if record.get("weight") is not None), None)
    return Line(
        *key,
        roles=tuple(str(record["role"]) for record in records if record.get("role")),
        weight=weight,
        state=str(records[0].get("state") or ""),
        requests_per_s=per_s,
        errors=errors,
        p50_s=p50_s,
        p99_s=p99_s,
        drift_alarm=None if last is None else last.drift_alarm,
    )


def quantile(q: float, within: Mapping[float, float]) -> float | None:
    """The first bound that at least this share of the answers is within; None without answers, or where it is infinite.

    Args:
        q: the share, 0 to 1.
        within: how many answers took at most so long, by the bound in seconds, in the order of bounds.
    """
    total = within.get(inf, 0.0)
    bound = next((bound for bound, count in within.items() if count >= q * total), inf) if total else inf
    return None if bound == inf else bound


def show_once(look: Callable[[], Look], *, interval_s: float = INTERVAL_S) -> None:
    """Looks twice and prints what is between; raises as `fetch` does."""
    from rich.console import Console

    first = look()
    time.sleep(interval_s)
    Console().print(drawn(first, look()))


def watch(look: Callable[[], Look], *, interval_s: float = INTERVAL_S) -> None:
    """Shows the server live until Ctrl-C; while it does not answer, the error.

    Raises:
        PenstockError: the first look failed.
    """
    from rich.console import Console
    from rich.live import Live

    first, console = look(), Console()
    with Live(drawn(first, first), console=console, auto_refresh=False, screen=console.is_terminal) as live:
        try:
            for frame in frames(first, look, _pauses(interval_s)):
                live.update(frame, refresh=True)
        except KeyboardInterrupt:
            return


def frames(first: Look, look: Callable[[], Look], pauses: Iterable[None]) -> Iterator[Any]:
    """What to show after each pause: the server since the look before, or why it cannot be shown."""
    from rich.text import Text

    before = first
    for _ in pauses:
        try:
            now = look()
        except PenstockError as error:
            yield Text(str(error), style="yellow")
            continue
        yield drawn(before, now)
        before = now


def _pauses(interval_s: float) -> Iterator[None]:
    while True:
        time.sleep(interval_s)
        yield


def drawn(before: Look, after: Look) -> Any:
    """The server as rich draws it: a table of versions, a line for each rollout, and one for each source that is away."""
    from rich.console import Group
    from rich.text import Text

    shown = lines(before, after)
    parts: list[Any] = [_table(shown) if shown else Text("no models are loaded")]
    parts += [Text(_rollout(each)) for each in after.rollouts]
    parts += [
        Text(f"{safe(str(source['name']))} is {source['state']}: {source['reason']}", style="yellow")
        for source in after.status["sources"]
        if source.get("reason")
    ]
    total = [line.requests_per_s for line in shown if line.requests_per_s is not None]
    head = f"{rate(sum(total)) if total else UNKNOWN} requests"
    if after.capacity is not None:
        head += f", {percent(after.capacity)} of the capacity used"
    return Group(Text(head, style="bold"), *parts)


def _table(shown: list[Line]) -> Any:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("model", "version", "role", "weight", "state"):
        table.add_column(name)
    for name in ("requests", "errors", "p50", "p99"):
        table.add_column(name, justify="right")
    table.add_column("drift")
    for line in shown:
        table.add_row(
            Text(safe(line.model)),
            Text(safe(line.version)),
            Text(", ".join(line.roles)),
            "" if line.weight is None else f"{line.weight:g}%",
            Text(line.state, style="green" if line.state == "READY" else "yellow"),
            rate(line.requests_per_s),
            Text(percent(line.errors), style="red" if line.errors else ""),
            _duration(line.p50_s),
            _duration(line.p99_s),
            _alarm(line.drift_alarm),
        )
    return table


def _alarm(is_on: bool | None) -> Any:
    from rich.text import Text

    return UNKNOWN if is_on is None else Text("alarm" if is_on else "", style="red")


def _duration(seconds: float | None) -> str:
    """In milliseconds, of which the histogram's bounds are told to two digits."""
    return UNKNOWN if seconds is None else f"≤ {number(seconds * 1e3, 2 if seconds < 0.01 else 0)} ms"


def _rollout(record: Mapping[str, Any]) -> str:
    name = f"{safe(str(record.get('model')))} {safe(str(record.get('version')))}"
    parts = [str(record.get(field) or "") for field in ("status", "stage", "reason", "problem")]
    return f"rollout of {name}: {', '.join(safe(part, 200) for part in parts if part)}"
