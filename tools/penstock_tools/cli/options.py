"""Arguments and options that several commands share."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

if TYPE_CHECKING:
    from penstock_tools.client_commands.connection import Encryption

Registry = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="The MLflow registry, such as http://mlflow:5000. Default: $MLFLOW_TRACKING_URI, else a file of your "
        "own that needs no server.",
        show_default=False,
    ),
]

Weight = Annotated[
    float | None,
    typer.Option(metavar="P", help="A canary's share of the traffic in percent, 0 to 100.", show_default=False),
]

ModelName = Annotated[str, typer.Argument(metavar="NAME", help="The registered model.", show_default=False)]

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

SampleFile = Annotated[
    Path | None,
    typer.Option(
        metavar="DATA",
        help="Rows that the model was trained on, .csv or .parquet, in the order of time.",
        show_default=False,
    ),
]

Precision = Annotated[
    Literal["FP32", "FP64"] | None,
    typer.Option(
        help="What the graph computes in. Default: FP32, or FP64 if the answers of FP32 differ too much.",
        show_default=False,
    ),
]

Trust = Annotated[
    bool,
    typer.Option(
        "--trust", help="Load the file even if it can run code: a pickle, or a .skops file with unknown types."
    ),
]

Server = Annotated[
    str,
    typer.Option(metavar="HOST:PORT", envvar="PENSTOCK_SERVER", help="The server's gRPC address."),
]

Http = Annotated[
    str,
    typer.Option(metavar="URL", envvar="PENSTOCK_HTTP", help="The server's HTTP address (its --http-port)."),
]

DEFAULT_SERVER: Final = "127.0.0.1:8001"
DEFAULT_HTTP: Final = "http://127.0.0.1:8002"

_ENCRYPTION = "Encryption"

UseTls = Annotated[
    bool,
    typer.Option(
        "--tls", envvar="PENSTOCK_TLS", help="Encrypt the connection.", rich_help_panel=_ENCRYPTION, show_default=False
    ),
]

Ca = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar="PENSTOCK_CA",
        help="PEM of the authorities to trust; means --tls. Default: those that gRPC trusts.",
        rich_help_panel=_ENCRYPTION,
        show_default=False,
    ),
]

Cert = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar="PENSTOCK_CERT",
        help="PEM of your certificate, for a server that asks for one; with --cert-key.",
        rich_help_panel=_ENCRYPTION,
        show_default=False,
    ),
]

CertKey = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        envvar="PENSTOCK_CERT_KEY",
        help="PEM of your certificate's key.",
        rich_help_panel=_ENCRYPTION,
        show_default=False,
    ),
]

ServerName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        envvar="PENSTOCK_SERVER_NAME",
        help="The name in the server's certificate, if it is not the address's host.",
        rich_help_panel=_ENCRYPTION,
        show_default=False,
    ),
]


def encryption(
    *, tls: bool, ca: Path | None, cert: Path | None, cert_key: Path | None, server_name: str | None
) -> "Encryption":
    """What the options of encryption say together."""
    from penstock_tools.client_commands.connection import Encryption

    return Encryption(tls=tls, ca=ca, certificate=cert, key=cert_key, server_name=server_name)
