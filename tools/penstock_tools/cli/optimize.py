"""`penstock optimize`: finds a faster form of a version, and what it costs in accuracy."""

from pathlib import Path
from typing import Annotated

import typer

from penstock_tools.cli.options import ModelName, Registry


def optimize(
    name: ModelName,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Rows like those of requests, .csv or .parquet. Half of them calibrate, the others are judged.",
            show_default=False,
        ),
    ],
    *,
    version: Annotated[
        str | None,
        typer.Option(metavar="V", help="The version, such as 3 or @canary. Default: the champion.", show_default=False),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The column of DATA with the truth. Without it, answers are compared with the version's own.",
            show_default=False,
        ),
    ] = None,
    max_loss: Annotated[
        float,
        typer.Option(metavar="LOSS", help="The most accuracy to lose: AUC of two classes, else accuracy, or R2."),
    ] = 0.002,
    provider: Annotated[
        str, typer.Option(metavar="NAME", help="What runs the forms, as in a server's execution.providers.")
    ] = "cpu",
    threads: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Measure each form with N threads too: batches are shorter, and take N cores.",
            show_default=False,
        ),
    ] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Register the chosen form as the next version, without a role.")
    ] = False,
    registry: Registry = None,
) -> None:
    """Measures a version in other forms for speed and accuracy, and registers the best if asked.

    The forms are int8 with ranges that rows of DATA fix, int8 with those of each batch, fp16, and the graph with less
    rewriting by onnxruntime. Each is loaded as a server loads it. Int8 pays for perceptrons with wide layers on CPUs, fp16 on
    GPUs. Trees, linear models and small perceptrons run in compiled kernels, which are faster than either.

    Example: [bold]penstock optimize fraud holdout.csv --labels is_fraud --register[/bold]

    Example, then: [bold]penstock promote fraud 5 --alias canary --weight 5[/bold]
    """
    from penstock_tools import progress
    from penstock_tools.publish import optimize as command

    with progress.steps() as report:
        found = command.optimize(
            name,
            data,
            version=version,
            labels=labels,
            max_loss=max_loss,
            provider=provider,
            threads=threads,
            register=register,
            registry=registry,
            report=report,
        )
    for line in command.lines(found):
        typer.echo(line)
    if found.registered:
        typer.echo(f"registered as {name} version {found.registered}; try it with:")
        typer.echo(f"  penstock promote {name} {found.registered} --alias canary --weight 5")
    elif found.chosen is not None:
        typer.echo("add --register to make it the next version")
