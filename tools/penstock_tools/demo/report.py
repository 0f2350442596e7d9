"""What the demo prints besides the live table: the versions, the address, the outcome, and commands to try next.

Decides what the demo promised and did not keep (`problems`), from which the exit code follows.
"""

import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock_tools import formatting
from penstock_tools.demo.plan import CANARY_PERCENT, MODEL
from penstock_tools.demo.results import HIGH, FeatureDrift, ShadowMetrics, Tally, percentile
from penstock_tools.demo.setup import DemoSetup
from penstock_tools.server_process import ServerProcess, tail

EXCERPT: Final = (
    "model_predictions_total",
    "penstock_requests_total",
    "penstock_shadow_agreement_ratio",
    "data_drift_score",
)
"""The metrics of which the lines with the highest values are printed."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the stream and the last scrape gave.

    Attributes:
        drift: the features that drifted most.
        excerpt: lines of /metrics.
    """

    tally: Tally
    shadow: ShadowMetrics | None
    drift: Sequence[FeatureDrift]
    excerpt: Sequence[str]


@dataclass(frozen=True, slots=True)
class CommandContext:
    """What the commands to try next refer to.

    Attributes:
        folder: what precedes a command's name, such as ".venv/bin/"; empty where the command is on the path.
        registry: the MLflow registry's address.
        rows: a file of rows for `penstock predict`.
    """

    folder: str
    registry: str
    rows: Path


def say_plan(console: Console) -> None:
    """Says what is about to be done."""
    _say(console, "Two models are trained on January to March, and registered if they are good enough:")


def say_versions(made: DemoSetup, console: Console) -> None:
    """Names the versions with their roles and scores."""
    shares = {
        made.first: "champion",
        made.second: f"canary for {CANARY_PERCENT:g}% of the traffic, shadow of the rest",
    }
    for each, role in shares.items():
        _say(console, f"version {each.version} is {role}: {each.title}, AUC {each.scores.auc:.3f} on April to June")


def say_addresses(server: ServerProcess, console: Console) -> None:
    """Says where the server listens."""
    _say(console, f"the server is ready: grpc {server.grpc}  http {server.http}\n")


def show_outcome(outcome: Outcome, console: Console) -> None:
    """Prints a few lines of the metrics, and the table of results."""
    _say(console, "\nFrom /metrics:")
    for line in outcome.excerpt:
        _say(console, f"  {line}", style="dim")
    console.print()
    console.print(table(outcome))


def say_commands_now(made: DemoSetup, server: ServerProcess, console: Console) -> None:
    """Says what to try while the server runs."""
    _say(console, "\nThe server runs until Ctrl-C. To try in another terminal:", style="bold")
    _say_commands(commands_now(_context(made), server.grpc, server.http, made.first.version), console)


def say_end(made: DemoSetup, found: Sequence[str], console: Console) -> int:
    """Prints the problems with the end of the server's log, or what to try next; returns the exit code."""
    for problem in found:
        _say(console, problem, style="red")
    if found:
        show_log(made, console)
        return 1
    _say(console, "\nEvery request was answered, and the server stopped with exit code 0.", style="green")
    is_kept = made.plan.keep or made.plan.folder is not None
    _say(console, "To try next:", style="bold")
    context = _context(made)
    _say_commands(commands_later(context) if is_kept else commands_from_scratch(context), console)
    return 0


def show_log(made: DemoSetup, console: Console) -> None:
    """Prints the end of the server's log."""
    if text := tail(made.log):
        _say(console, f"The end of the server's log:\n{text}", style="dim")


def table(outcome: Outcome) -> Table:
    """The results, one per line."""
    tally = outcome.tally
    shown = Table(title="The demo in numbers", show_header=False, title_justify="left")
    shown.add_row("requests", f"{tally.requests:,} ({tally.rows:,} rows)")
    shown.add_row("failures", f"[{'red' if tally.failures else 'green'}]{tally.failures}")
    durations = (formatting.milliseconds(percentile(tally.durations, percent)) for percent in (50, 99))
    shown.add_row("p50, p99 at the client", ", ".join(durations))
    shown.add_row(f"share of version {tally.challenger}", _shares(tally))
    shown.add_row("promotion", promotion(tally))
    shown.add_row("accuracy", _accuracies(tally))
    shown.add_row("shadow and champion", _agreement(outcome.shadow))
    for at, drift in enumerate(outcome.drift):
        shown.add_row("drift" if at == 0 else "", drifted(drift))
    return shown


def promotion(tally: Tally) -> str:
    """When the registry had the promotion, and when the replies showed it."""
    if tally.promoted_s is None:
        return "never reached the registry"
    if tally.switched_s is None:
        return f"in the registry at {tally.promoted_s:.1f} s, and no reply showed it"
    seconds = tally.switched_s - tally.promoted_s
    return f"in the registry at {tally.promoted_s:.1f} s; the replies switched {seconds:.1f} s later"


def drifted(drift: FeatureDrift) -> str:
    """One feature's drift over the stream."""
    began = f"never over {HIGH:g}" if drift.began is None else f"first over {HIGH:g} in {formatting.month(drift.began)}"
    highest = f"{formatting.number(drift.highest)} in {formatting.month(drift.highest_month)}"
    return f"{drift.feature}: {began}, {highest}"


def problems(tally: Tally, exit_code: int | None) -> list[str]:
    """What the demo promised and did not keep, one sentence each; empty when all went well.

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


def commands_now(context: CommandContext, grpc: str, http: str, former: str) -> list[tuple[str, str]]:
    """Commands to try while the server runs, each with what it does; `former` is the first champion."""
    penstock, url = f"{context.folder}penstock", f"http://{http}"
    registry = shlex.quote(context.registry)
    return [
        (f"{penstock} models --http {url}", "show what is loaded, in which role"),
        (f"{penstock} predict {MODEL} {shlex.quote(str(context.rows))} --server {grpc}", "predict a few flights"),
        (f"curl -s {url}/metrics | grep ^data_drift_score", "see what Prometheus reads"),
        (f"{penstock} promote {MODEL} {former} --registry {registry}", "go back to the former champion"),
    ]


def commands_later(context: CommandContext) -> list[tuple[str, str]]:
    """Commands to try with a folder that was kept."""
    registry = shlex.quote(context.registry)
    return [
        (f"{context.folder}penstock serve --registry {registry}", "serve the models again, on the usual ports"),
        (f"{context.folder}mlflow ui --backend-store-uri {registry}", "look at the runs, their scores and plots"),
    ]


def commands_from_scratch(context: CommandContext) -> list[tuple[str, str]]:
    """Commands to try when nothing was kept."""
    penstock = f"{context.folder}penstock"
    return [
        (f"{penstock} demo --keep", "the same, and leave the server running"),
        (f"{penstock} demo train && {penstock} serve", "the same models in a registry of your own, and a server on it"),
    ]


def _shares(tally: Tally) -> str:
    before, after = (tally.share(tally.challenger, phase) for phase in ("before", "after"))
    return f"{formatting.percent(before)} before the promotion, {formatting.percent(after)} after"


def _accuracies(tally: Tally) -> str:
    # Of the phase in which all versions answered: months differ in how hard they are.
    shown = [f"version {each} {formatting.percent(tally.score(each, 'before').accuracy)}" for each in tally.versions]
    return f"{', '.join(shown)}, before the promotion" if shown else formatting.UNKNOWN


def _agreement(shadow: ShadowMetrics | None) -> str:
    if shadow is None or shadow.agreement is None:
        return formatting.UNKNOWN
    return f"the same class in {formatting.percent(shadow.agreement)} of {shadow.compared:,} rows"


def _context(made: DemoSetup) -> CommandContext:
    return CommandContext(_commands_folder(), made.registry, made.rows)


def _commands_folder() -> str:
    if shutil.which("penstock"):
        return ""
    folder = Path(sys.executable).parent
    here = Path.cwd()
    return f"{folder.relative_to(here) if folder.is_relative_to(here) else folder}/"


def _say_commands(commands: Sequence[tuple[str, str]], console: Console) -> None:
    for command, why in commands:
        _say(console, f"  # {why}", style="dim")
        _say(console, f"  {command}")


def _say(console: Console, text: str, *, style: str = "") -> None:
    console.print(Text(text, style=style), soft_wrap=True)
