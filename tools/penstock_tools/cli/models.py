"""`penstock models`: what a server has loaded."""

from typing import Annotated

import typer

from penstock_tools.cli.options import DEFAULT_HTTP, Ca, Cert, CertKey, Http, Json, ServerName, UseTls, encryption


def models(
    *,
    http: Http = DEFAULT_HTTP,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Ask over gRPC instead, where only that port is open; it knows no roles.",
            show_default=False,
        ),
    ] = None,
    fleet: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Ask several servers instead, and show where they differ: an HTTP address, or dns://NAME:PORT for all "
            "addresses of a name. May be given more than once.",
            show_default=False,
        ),
    ] = None,
    fail_on_difference: Annotated[
        bool,
        typer.Option(
            "--fail-on-difference",
            help="With --fleet: exit status 3 unless all servers answer, agree, and serve what is wanted.",
        ),
    ] = False,
    as_json: Json = False,
    tls: UseTls = False,
    ca: Ca = None,
    cert: Cert = None,
    cert_key: CertKey = None,
    server_name: ServerName = None,
) -> None:
    """Shows what a server has loaded: the wanted and the served role of each version, its state, and why.

    A role is [bold]wanted[/bold] from the moment of the promotion, and [bold]served[/bold] once the version is fetched,
    checked and loaded. The line below the table says what keeps a version from it. In a terminal that is wide enough,
    [bold]engine[/bold] is what runs the version; [bold]--json[/bold] says why too.

    Example: [bold]penstock models --http http://models:8002[/bold], or of all pods of a headless service [bold]penstock models
    --fleet dns://penstock-headless:8002[/bold]
    """
    from penstock_tools import output
    from penstock_tools.client_commands import fleet as fleets
    from penstock_tools.client_commands import models as command

    encrypted = encryption(tls=tls, ca=ca, cert=cert, cert_key=cert_key, server_name=server_name)
    if fleet:
        found = fleets.fetch(fleets.addresses(fleet), encrypted)
        if as_json:
            typer.echo(output.as_json(found))
        else:
            fleets.show(found)
        if fail_on_difference and not found.agrees:
            raise typer.Exit(3)
        return
    status = command.fetch(http, encrypted) if server is None else command.fetch_over_grpc(server, encrypted)
    if as_json:
        typer.echo(output.as_json(status))
    else:
        command.show(status)
