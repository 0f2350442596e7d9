"""The commands of `penstock`, one module per command, in the order of the help.

A command imports what it needs when it runs.
"""

import importlib.metadata
import inspect
import os
from typing import Annotated

import typer

from penstock_tools.cli import config, demo, rollout, token, webhook
from penstock_tools.cli.batch import batch
from penstock_tools.cli.compile import compile_kernels
from penstock_tools.cli.drift import drift
from penstock_tools.cli.drift_check import drift_check
from penstock_tools.cli.errors import DEBUG_VARIABLE
from penstock_tools.cli.features import features
from penstock_tools.cli.labels import labels
from penstock_tools.cli.models import models
from penstock_tools.cli.optimize import optimize
from penstock_tools.cli.predict import predict
from penstock_tools.cli.promote import promote
from penstock_tools.cli.publish import publish
from penstock_tools.cli.replay import replay
from penstock_tools.cli.retraining import retraining
from penstock_tools.cli.serve import serve
from penstock_tools.cli.stream import stream
from penstock_tools.cli.top import top

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(requested: bool) -> None:
    if requested:
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
    """Serves ONNX models over gRPC from an MLflow registry, and shows when their input drifts.

    For a first look, [bold]penstock demo[/bold] shows everything on this machine. To serve models yourself, run
    [bold]penstock demo train[/bold], then [bold]penstock serve[/bold], and in another terminal
    [bold]penstock models[/bold].
    """
    if debug:
        # In the environment, so that it reaches the processes that a server starts.
        os.environ[DEBUG_VARIABLE] = "1"


def _join_lines(app: typer.Typer) -> None:
    """Makes each paragraph of the help texts one line, which rich breaks where the terminal ends.

    Of a docstring rich keeps the line breaks and adds its own, so that a paragraph breaks in mid-sentence.
    """
    for described in (*app.registered_commands, app.registered_callback):
        if described is not None and described.callback is not None:
            paragraphs = inspect.cleandoc(described.callback.__doc__ or "").split("\n\n")
            described.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _join_lines(group.typer_instance)


_RUN = "Serve and predict"
_RELEASE = "Train and release"

app.command(rich_help_panel=_RUN)(serve)
app.command(rich_help_panel=_RUN)(models)
app.command(rich_help_panel=_RUN)(top)
app.command(rich_help_panel=_RUN)(predict)
app.command(rich_help_panel=_RUN)(batch)
app.command(rich_help_panel=_RUN)(stream)
app.command(rich_help_panel=_RUN)(drift)
app.command(rich_help_panel=_RUN)(labels)
app.command(rich_help_panel=_RUN)(retraining)
app.add_typer(config.app, name="config", rich_help_panel=_RUN)
app.add_typer(token.app, name="token", rich_help_panel=_RUN)
app.add_typer(webhook.app, name="webhook", rich_help_panel=_RUN)
app.add_typer(demo.app, name="demo", rich_help_panel=_RUN)
app.command("compile", rich_help_panel=_RUN)(compile_kernels)
app.command("train", hidden=True)(demo.former_train)
app.command(rich_help_panel=_RELEASE)(publish)
app.command(rich_help_panel=_RELEASE)(features)
app.command(rich_help_panel=_RELEASE)(optimize)
app.command(rich_help_panel=_RELEASE)(promote)
app.add_typer(rollout.app, name="rollout", rich_help_panel=_RELEASE)
app.command("drift-check", rich_help_panel=_RELEASE)(drift_check)
app.command(rich_help_panel=_RELEASE)(replay)

_join_lines(app)
