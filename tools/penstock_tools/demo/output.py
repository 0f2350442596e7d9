"""What the demo says besides the screen: who plays, where the server listens, the sums, and what to try next."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from penstock_tools.demo import report as summary
from penstock_tools.demo.plan import CANARY_PERCENT
from penstock_tools.demo.setup import Stage
from penstock_tools.server_process import ServerProcess, tail


def announce(console: Console) -> None:
    """Says what is about to be done."""
    _say(console, "Two versions learn from January to March, and are registered if they are good enough:")


def introduce(ready: Stage, console: Console) -> None:
    """Names the versions and their roles."""
    shares = {
        ready.first: "champion",
        ready.second: f"canary for {CANARY_PERCENT:g}% of the traffic, shadow of the rest",
    }
    for each, role in shares.items():
        _say(console, f"version {each.version} is {role}: {each.title}, AUC {each.scores.auc:.3f} on April to June")


def say_where(server: ServerProcess, console: Console) -> None:
    """Tells where the server listens."""
    _say(console, f"the server is ready: grpc {server.grpc}  http {server.http}\n")


def sum_up(outcome: summary.Outcome, console: Console) -> None:
    """Shows a few lines of the metrics, and the table of what happened."""
    _say(console, "\nFrom /metrics:")
    for line in outcome.excerpt:
        _say(console, f"  {line}", style="dim")
    console.print()
    console.print(summary.table(outcome))


def say_commands_now(ready: Stage, server: ServerProcess, console: Console) -> None:
    """Says what to try while the server runs."""
    _say(console, "\nThe server goes on until Ctrl-C. To try in another terminal:", style="bold")
    _say_commands(summary.commands_now(_place(ready), server.grpc, server.http, ready.first.version), console)


def say_end(ready: Stage, problems: Sequence[str], console: Console) -> int:
    """Says how it ended, with the server's log if something went wrong; returns the exit code."""
    for problem in problems:
        _say(console, problem, style="red")
    if problems:
        show_log(ready, console)
        return 1
    _say(console, "\nEvery request was answered, and the server stopped with exit code 0.", style="green")
    is_kept = ready.plan.keep or ready.plan.folder is not None
    _say(console, "To try next:", style="bold")
    place = _place(ready)
    _say_commands(summary.commands_later(place) if is_kept else summary.commands_anew(place), console)
    return 0


def show_log(ready: Stage, console: Console) -> None:
    """Shows the end of the server's log."""
    if text := tail(ready.log):
        _say(console, f"The end of the server's log:\n{text}", style="dim")


def _place(ready: Stage) -> summary.Place:
    return summary.Place(commands=_commands_folder(), registry=ready.registry, rows=ready.rows)


def _commands_folder() -> str:
    """What goes before a command so that it is found: nothing if it is on the path."""
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
