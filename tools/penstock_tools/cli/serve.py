"""`penstock serve`: starts a server."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from penstock_tools.cli.options import Registry


class Transport(StrEnum):
    """The ways to speak gRPC."""

    COMPLETION_QUEUE = "completion-queue"
    AIO = "aio"


def serve(
    *,
    registry: Registry = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A registered model to serve; repeat it for more. Default: every model that has a champion.",
            show_default=False,
        ),
    ] = None,
    model_repository: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Serve DIR/<model>/<version>/model.onnx, the highest version of each, without a registry or beside one.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="The address to listen on. Default: 127.0.0.1.", show_default=False)
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="The gRPC port; 0 picks a free one. Default: 8001.", show_default=False)
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(help="The port of metrics, health and state over HTTP. Default: 8002.", show_default=False),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Processes that share the gRPC port, one a core. Default: 1.", show_default=False
        ),
    ] = None,
    transport: Annotated[
        Transport | None,
        typer.Option(
            help="completion-queue is the fast one and the default; aio the portable one.", show_default=False
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Settings in TOML; options given here win over them.", show_default=False),
    ] = None,
) -> None:
    """Serves models over gRPC until it is stopped with Ctrl-C or SIGTERM.

    It follows the registry: a version promoted there is loaded, checked and served within seconds, and the former one
    answers until then. When the registry is away, serving goes on.

    Example: [bold]penstock serve --registry http://mlflow:5000 --workers 4[/bold]
    """
    from penstock_server import cli

    cli.run(
        registry=registry,
        models=tuple(model or ()),
        model_repository=model_repository,
        host=host,
        port=port,
        http_port=http_port,
        workers=workers,
        transport=None if transport is None else transport.value,
        config=config,
    )
