"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

import typer

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
