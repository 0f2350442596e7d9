"""`penstock predict`: predictions from a server."""

from typing import Annotated, Literal

import typer

from penstock_tools.cli.options import DEFAULT_SERVER, Ca, Cert, CertKey, Json, Server, ServerName, UseTls, encryption


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
    server: Server = DEFAULT_SERVER,
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
    extra: Annotated[
        Literal["ignore", "refuse"],
        typer.Option(help="What becomes of columns that the model does not take: left out with a notice, or refused."),
    ] = "ignore",
    explain: Annotated[
        bool, typer.Option("--explain", help="Show how much each raw column moved the answer, as Shapley values.")
    ] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Give up after this long.")] = 10.0,
    as_json: Json = False,
    tls: UseTls = False,
    ca: Ca = None,
    cert: Cert = None,
    cert_key: CertKey = None,
    server_name: ServerName = None,
) -> None:
    """Gets predictions from a server and shows them, with the version that answered.

    Columns are matched by name with the model's inputs, in any order. An empty field is a missing value. A value that the
    model's type cannot hold is refused, never rounded or cut.

    Example: [bold]penstock predict flights rows.csv --explain[/bold]

    Example: [bold]penstock predict flights rows.csv --server models:8001 --version @canary[/bold]
    """
    from penstock_tools.client_commands import predict as command

    prediction = command.predict(
        name,
        rows,
        server=server,
        encryption=encryption(tls=tls, ca=ca, cert=cert, cert_key=cert_key, server_name=server_name),
        version=version,
        key=key,
        extra=extra,
        explain=explain,
        timeout_s=timeout,
    )
    if as_json:
        typer.echo(command.as_json(prediction))
    else:
        command.show(prediction)
