"""The end of the demo: the table of what happened, what went wrong if anything did, and what to try next."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from penstock_tools.demo import format as words
from penstock_tools.demo.metrics import Shadow
from penstock_tools.demo.onset import HIGH, Drift
from penstock_tools.demo.plan import MODEL
from penstock_tools.demo.results import Tally, percentile

EXCERPT = (
    "model_predictions_total",
    "penstock_requests_total",
    "penstock_shadow_agreement_ratio",
    "data_drift_score",
)
"""The metrics of which the highest lines are shown."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the stream and the last scrape gave.

    Attributes:
        drift: the features that drifted most.
        excerpt: lines of /metrics.
    """

    tally: Tally
    shadow: Shadow | None
    drift: Sequence[Drift]
    excerpt: Sequence[str]


@dataclass(frozen=True, slots=True)
class Place:
    """What the commands to try next are about.

    Attributes:
        commands: what goes before a command's name, such as ".venv/bin/"; empty where it is on the path.
        registry: the MLflow registry's address.
        rows: a file of rows to ask about.
    """

    commands: str
    registry: str
    rows: Path


def table(outcome: Outcome) -> Table:
    """What happened, a line a fact."""
    tally = outcome.tally
    shown = Table(title="The demo in numbers", show_header=False, title_justify="left")
    shown.add_row("requests", f"{tally.requests:,} ({tally.rows:,} rows)")
    shown.add_row("failures", f"[{'red' if tally.failures else 'green'}]{tally.failures}")
    shown.add_row(
        "p50, p99 at the client", ", ".join(words.milliseconds(percentile(tally.durations, p)) for p in (50, 99))
    )
    shown.add_row(f"share of version {tally.challenger}", _shares(tally))
    shown.add_row("promotion", promotion(tally))
    shown.add_row("accuracy", _accuracies(tally))
    shown.add_row("shadow and champion", _agreement(outcome.shadow))
    for at, drift in enumerate(outcome.drift):
        shown.add_row("drift" if at == 0 else "", drifted(drift))
    return shown


def promotion(tally: Tally) -> str:
    """The moment at which the replies switched, in words."""
    if tally.promoted_s is None:
        return "never reached the registry"
    if tally.switched_s is None:
        return f"in the registry at {tally.promoted_s:.1f} s, and no reply showed it"
    seconds = tally.switched_s - tally.promoted_s
    return f"in the registry at {tally.promoted_s:.1f} s; the replies switched {seconds:.1f} s later"


def drifted(drift: Drift) -> str:
    """A feature's drift, in words."""
    began = f"first over {HIGH:g} in {words.month(drift.began)}" if drift.began is not None else f"never over {HIGH:g}"
    return f"{drift.feature}: {began}, {words.number(drift.highest)} in {words.month(drift.highest_month)}"


def problems(tally: Tally, exit_code: int | None) -> list[str]:
    """What the demo promised and did not keep, a sentence each; empty when all went well.

    Args:
        tally: the stream's results.
        exit_code: the server's; None while it is left running.
    """
    found = []
    if tally.failures:
        why, count = tally.errors.most_common(1)[0]
        found.append(f"{tally.failures} requests failed, {count} of them with: {why}")
    if tally.switched_s is None:
        found.append(f"no reply came from version {tally.challenger} as champion")
    if exit_code:
        found.append(f"the server ended with exit code {exit_code}; expected 0")
    return found


def commands_now(place: Place, grpc: str, http: str, former: str) -> list[tuple[str, str]]:
    """What to try while the server runs: commands, each with what it does; `former` is the first champion."""
    penstock, url = f"{place.commands}penstock", f"http://{http}"
    registry = shlex.quote(place.registry)
    return [
        (f"{penstock} models --http {url}", "show what is loaded, in which role"),
        (
            f"{penstock} predict {MODEL} {shlex.quote(str(place.rows))} --server {grpc}",
            "ask about a few flights",
        ),
        (f"curl -s {url}/metrics | grep ^data_drift_score", "see what Prometheus reads"),
        (f"{penstock} promote {MODEL} {former} --registry {registry}", "go back to the former champion"),
    ]


def commands_later(place: Place) -> list[tuple[str, str]]:
    """What to try with a folder that was kept."""
    registry = shlex.quote(place.registry)
    return [
        (f"{place.commands}penstock serve --registry {registry}", "serve the models again, on the usual ports"),
        (f"{place.commands}mlflow ui --backend-store-uri {registry}", "look at the runs, their scores and plots"),
    ]


def commands_anew(place: Place) -> list[tuple[str, str]]:
    """What to try when nothing was kept."""
    penstock = f"{place.commands}penstock"
    return [
        (f"{penstock} demo --keep", "the same, and the server is left running to be asked"),
        (f"{penstock} train && {penstock} serve", "the same models in a registry of your own, and a server on it"),
    ]


def _shares(tally: Tally) -> str:
    before, after = tally.share(tally.challenger, "before"), tally.share(tally.challenger, "after")
    return f"{words.percent(before)} before the promotion, {words.percent(after)} after"


def _accuracies(tally: Tally) -> str:
    """Of the time when all versions answered, since months differ in how hard they are."""
    shown = [f"version {each} {words.percent(tally.score(each, 'before').accuracy)}" for each in tally.versions]
    return f"{', '.join(shown)}, before the promotion" if shown else words.UNKNOWN


def _agreement(shadow: Shadow | None) -> str:
    if shadow is None or shadow.agreement is None:
        return words.UNKNOWN
    return f"the same class in {words.percent(shadow.agreement)} of {shadow.compared:,} rows"
