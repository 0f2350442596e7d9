"""`penstock predict`: predictions from a server."""

from typing import Annotated

import typer

from penstock_tools.cli.options import Json


def predict(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model.", show_default=False)],
    rows: Annotated[
        str,
        typer.Argument(
            metavar="ROWS",
            help="A .json file (a list of rows, or an object of columns) or a .csv file with a header; - reads JSON "
            "from standard input.",
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
            metavar="K",
            help="The routing key: requests with the same key go to the same version while a canary grows.",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Give up after this long.")] = 10.0,
    as_json: Json = False,
) -> None:
    """Gets predictions from a server and shows them, with the version that answered.

    Columns are matched by name with the model's inputs. An empty field is a missing value.

    Example: [bold]penstock predict flights rows.csv --server models:8001 --version @canary[/bold]
    """
    from penstock_tools.client_commands import predict as command

    prediction = command.predict(name, rows, server=server, version=version, key=key, timeout_s=timeout)
    if as_json:
        typer.echo(command.as_json(prediction))
    else:
        command.show(prediction)
