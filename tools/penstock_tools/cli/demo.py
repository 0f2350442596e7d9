"""`penstock demo`: the whole story on one machine."""

from pathlib import Path
from typing import Annotated

import typer


def demo(
    *,
    rows: Annotated[int, typer.Option(metavar="N", help="Flights to send, spread over April to December.")] = 240_000,
    seconds: Annotated[
        float, typer.Option(metavar="S", help="Spread the traffic over this long, if the machine keeps up.")
    ] = 45.0,
    workers: Annotated[int, typer.Option(metavar="N", help="The server's processes.")] = 1,
    port: Annotated[int, typer.Option(help="The server's gRPC port; 0 picks a free one.")] = 0,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the server running at the end, and keep the folder.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep the registry, the artifacts and the log here. Default: a temporary folder.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Shows it all on this machine: trains, serves, sends a year of flights, promotes a canary, meets drift.

    Two models learn from January to March. A server answers the flights of April to December with the first as
    champion, and with the second as canary for 10% of the traffic and as shadow of the rest; half-way the second is
    promoted. It needs nothing else, uses free ports and a registry of its own, and fails if a single request does.

    Example: [bold]penstock demo --keep[/bold]
    """
    from penstock_tools.demo import run
    from penstock_tools.demo.plan import Plan

    plan = Plan(rows=rows, seconds=seconds, workers=workers, port=port, keep=keep, folder=folder)
    raise typer.Exit(run(plan))
