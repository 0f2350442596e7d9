"""Arguments and options that several commands share."""

from typing import Annotated

import typer

Registry = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="The MLflow registry, such as http://mlflow:5000. Default: $MLFLOW_TRACKING_URI, else one in a file of "
        "your own that needs no server.",
        show_default=False,
    ),
]

Weight = Annotated[
    float | None,
    typer.Option(metavar="P", help="A canary's share of the traffic in percent, 0 to 100.", show_default=False),
]

ModelName = Annotated[str, typer.Argument(metavar="NAME", help="The registered model.", show_default=False)]

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
