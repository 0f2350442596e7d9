"""`penstock webhook`: has an MLflow server tell servers of changes, so that they need not wait for their next poll."""

from pathlib import Path
from typing import Annotated

import typer

from penstock_tools.cli.options import Json, Registry

app = typer.Typer(no_args_is_help=True, help="Have MLflow wake servers when something changes in the registry.")

Which = Annotated[str, typer.Argument(metavar="URL", help="The server's HTTP address, or a webhook's id.")]


@app.command()
def add(
    url: Annotated[
        str,
        typer.Argument(metavar="URL", help="Where MLflow reaches the server's HTTP port, as in http://models:8002."),
    ],
    *,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The secret that the server has too, in webhook.secret_file. Default: $PENSTOCK_WEBHOOK_SECRET, or asked for.",
            show_default=False,
        ),
    ] = None,
    registry: Registry = None,
) -> None:
    """Registers a webhook in MLflow that wakes a server, and shows what MLflow needs to send it.

    The server takes it once its settings have a secret: [bold]webhook.secret_file[/bold] or
    [bold]webhook.secret_env[/bold]. It polls the registry all the same; a webhook only has it do so at once. Adding the same
    address again sets its secret anew.

    Example: [bold]penstock webhook add http://models:8002 --secret-file secret --registry http://mlflow:5000[/bold]
    """
    from penstock_tools.publish import webhooks

    address = webhooks.address_of(url)
    made, is_new = webhooks.add(registry, address, _secret(secret_file))
    typer.echo(f"{'added' if is_new else 'renewed'} webhook {made} to {address}")
    typer.echo(
        "\nthe MLflow server sends it only with these in its environment, where the address is private or has no TLS:\n"
    )
    for line in webhooks.variables():
        typer.echo(f"  {line}")
    typer.echo(
        f"\nand it keeps secrets over a restart, and with more than one worker, only with {webhooks.KEY}.\n"
        "It begins to send within a minute. `penstock webhook test` tries it."
    )


@app.command("list")
def list_webhooks(*, registry: Registry = None, as_json: Json = False) -> None:
    """Shows the webhooks of the registry."""
    from penstock_tools import output
    from penstock_tools.publish import webhooks

    found = webhooks.listed(registry)
    if as_json:
        typer.echo(output.as_json(found))
        return
    for each in found:
        state = "active" if each.is_active else "disabled"
        typer.echo(f"{each.id}  {each.url}  {each.name}, {state}: {', '.join(each.events)}")
    if not found:
        typer.echo("the registry has no webhooks")


@app.command("test")
def try_webhook(which: Which, *, registry: Registry = None) -> None:
    """Has MLflow send an example, and shows what the server answered; exit code 1 if it did not take it."""
    from penstock_tools.publish import webhooks

    typer.echo(webhooks.try_out(registry, which))


@app.command()
def remove(which: Which, *, registry: Registry = None) -> None:
    """Deletes a webhook from the registry."""
    from penstock_tools.publish import webhooks

    typer.echo(f"removed webhook {webhooks.remove(registry, which)}")


def _secret(file: Path | None) -> str:
    import os
    import sys

    from penstock_server.control.settings import checked_secret
    from penstock_server.errors import InvalidInputError

    if file is not None:
        try:
            return checked_secret(file.read_text(), str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInputError(f"the secret in {file} cannot be read: {error}") from error
    # Not an argument: other users of the machine can read those.
    given = os.environ.get("PENSTOCK_WEBHOOK_SECRET") or (
        typer.prompt("secret", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    )
    return checked_secret(given, "what was given")
