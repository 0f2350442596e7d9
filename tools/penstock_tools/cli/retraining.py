"""`penstock retraining`: what a server's rules of retraining say, and a trial of their actions."""

from pathlib import Path
from typing import Annotated

import typer

from penstock_tools.cli.options import DEFAULT_HTTP, Ca, Cert, CertKey, Http, Json, ServerName, UseTls, encryption

_TRIAL = "Trying an action"


def retraining(
    *,
    http: Http = DEFAULT_HTTP,
    as_json: Json = False,
    test: Annotated[
        str | None,
        typer.Option(
            metavar="ACTION",
            help="Carry out this action of the settings file with an event that says that it is a test.",
            rich_help_panel=_TRIAL,
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The server's settings, with --test.", rich_help_panel=_TRIAL, show_default=False
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME", help="The model that the event names.", rich_help_panel=_TRIAL)
    ] = "example",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print what would be sent, without secrets.", rich_help_panel=_TRIAL),
    ] = False,
    tls: UseTls = False,
    ca: Ca = None,
    cert: Cert = None,
    cert_key: CertKey = None,
    server_name: ServerName = None,
) -> None:
    """Shows what each rule of retraining finds, what holds it back, and what became of its calls.

    Rules and actions stand in the server's settings. With [bold]--test[/bold] an action is carried out from here, with an event
    that is an example; [bold]--dry-run[/bold] only prints it.

    Example: [bold]penstock retraining --http http://models:8002[/bold]

    Example: [bold]penstock retraining --config penstock.toml --test airflow --dry-run[/bold]
    """
    from penstock_tools import output
    from penstock_tools.client_commands import retraining as command

    if test is None:
        if dry_run or config is not None:
            raise typer.BadParameter("it goes with --test ACTION", param_hint="--config and --dry-run")
        encrypted = encryption(tls=tls, ca=ca, cert=cert, cert_key=cert_key, server_name=server_name)
        status = command.fetch(http, encrypted)
        if as_json:
            typer.echo(output.as_json(status))
        else:
            command.show(status)
        return
    if config is None:
        raise typer.BadParameter("name the server's settings, which have the actions", param_hint="--config")
    tried = command.trial(config, test, model, "0")
    if dry_run:
        for line in command.described(tried):
            typer.echo(line)
    else:
        typer.echo(command.run(tried))
