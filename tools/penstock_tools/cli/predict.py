"""`penstock predict`: asks a server for predictions."""

from typing import Annotated

import typer

from penstock_tools.cli.options import Json


def predict(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model.", show_default=False)],
    rows: Annotated[
        str,
        typer.Argument(
            metavar="ROWS",
            help="A .json file (a list of rows, or a column by name) or a .csv file with a header; - reads JSON from "
            "standard input.",
            show_default=False,
        ),
    ],
    *,
    server: Annotated[str, typer.Option(metavar="HOST:PORT", help="The server's gRPC address.")] = "127.0.0.1:8001",
    version: Annotated[
        str,
        typer.Option(
            metavar="V", help="A version, or an alias such as @canary. Default: the server chooses.", show_default=False
        ),
    ] = "",
    key: Annotated[
        str | None,
        typer.Option(
            metavar="K", help="Requests with one key go to one version while a canary grows.", show_default=False
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Give up after this long.")] = 10.0,
    as_json: Json = False,
) -> None:
    """Asks a server for predictions and shows them, with the version that answered.

    Columns are matched by name with what the model declares; an empty field is a missing value.

    Example: [bold]penstock predict flights rows.csv --server models:8001 --version @canary[/bold]
    """
    from penstock_tools.client_commands import predict as asking

    prediction = asking.ask(name, rows, server=server, version=version, key=key, timeout_s=timeout)
    if as_json:
        typer.echo(asking.as_json(prediction))
    else:
        asking.show(prediction)
