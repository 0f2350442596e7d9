"""`penstock models`: what a server has loaded."""

from typing import Annotated

import typer

from penstock_tools.cli.options import Json


def models(
    http: Annotated[
        str, typer.Option(metavar="URL", help="The server's HTTP address (its --http-port).")
    ] = "http://127.0.0.1:8002",
    as_json: Json = False,
) -> None:
    """Shows what a server has loaded: the role, share of the traffic and state of each version, and the reasons.

    Example: [bold]penstock models --http http://models:8002[/bold]
    """
    from penstock_tools.client_commands import models as command

    status = command.fetch(http)
    if as_json:
        typer.echo(command.as_json(status))
    else:
        command.show(status)
