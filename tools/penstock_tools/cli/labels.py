"""`penstock labels`: what became of labels, and how good versions are by them."""

from typing import Annotated

import typer

from penstock_tools.cli.options import DEFAULT_HTTP, Ca, Cert, CertKey, Http, Json, ServerName, UseTls, encryption


def labels(
    model: Annotated[
        str, typer.Argument(metavar="[MODEL]", help="The model; all by default.", show_default=False)
    ] = "",
    *,
    http: Http = DEFAULT_HTTP,
    as_json: Json = False,
    tls: UseTls = False,
    ca: Ca = None,
    cert: Cert = None,
    cert_key: CertKey = None,
    server_name: ServerName = None,
) -> None:
    """Shows what became of the labels that a server got, and how good each version is by them.

    Accuracy, AUC, calibration and errors are those of each version's latest answers that are old enough to count, with the
    labels that came in time; beside them the accuracy that is [bold]expected[/bold] without labels. Intervals hold in 95 of 100
    cases.

    Example: [bold]penstock labels fraud --http http://models:8002[/bold]
    """
    from penstock_tools import output
    from penstock_tools.client_commands import labels as command

    encrypted = encryption(tls=tls, ca=ca, cert=cert, cert_key=cert_key, server_name=server_name)
    status = command.fetch(http, model, encrypted)
    if as_json:
        typer.echo(output.as_json(status))
    else:
        command.show(status)
