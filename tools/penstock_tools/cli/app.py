"""The commands of `penstock`, one a module: each declares its options and hands them on.

This module lists them in the order of the help. A command imports what it needs when it runs.
"""

import importlib.metadata
import os
from typing import Annotated

import typer

from penstock_tools.cli import demo
from penstock_tools.cli.drift import drift
from penstock_tools.cli.errors import DEBUG_VARIABLE
from penstock_tools.cli.features import features
from penstock_tools.cli.models import models
from penstock_tools.cli.predict import predict
from penstock_tools.cli.promote import promote
from penstock_tools.cli.publish import publish
from penstock_tools.cli.serve import serve

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"penstock {importlib.metadata.version('penstock')}")
        raise typer.Exit


@app.callback()
def penstock(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback when a command fails; also PENSTOCK_DEBUG=1.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - typer calls the callback
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Serves ONNX models over gRPC from an MLflow registry, and says when they stop being right.

    A first look: [bold]penstock demo train[/bold], then [bold]penstock serve[/bold], and in another terminal
    [bold]penstock models[/bold].
    """
    if debug:
        # In the environment, so that the processes that a server starts know it too.
        os.environ[DEBUG_VARIABLE] = "1"


_RUN = "Serve and ask"
_RELEASE = "Train and release"

app.command(rich_help_panel=_RUN)(serve)
app.command(rich_help_panel=_RUN)(models)
app.command(rich_help_panel=_RUN)(predict)
app.command(rich_help_panel=_RUN)(drift)
app.add_typer(demo.app, name="demo", rich_help_panel=_RUN)
app.command("train", hidden=True)(demo.former_train)
app.command(rich_help_panel=_RELEASE)(publish)
app.command(rich_help_panel=_RELEASE)(features)
app.command(rich_help_panel=_RELEASE)(promote)
