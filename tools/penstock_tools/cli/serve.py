"""`penstock serve`: starts a server."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from penstock_tools.cli.options import Registry


def serve(
    *,
    registry: Registry = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A registered model to serve. Repeat the option for more. Default: every model that has a champion.",
            show_default=False,
        ),
    ] = None,
    model_repository: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Serve the highest version of each model in DIR/<model>/<version>/model.onnx, with or without a registry.",
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str | None,
        typer.Option(help="The address to listen on, or unix:/path. Default: 127.0.0.1.", show_default=False),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="The gRPC port; 0 picks a free one. Default: 8001.", show_default=False)
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(help="The HTTP port of metrics, health and status. Default: 8002.", show_default=False),
    ] = None,
    rest_port: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            help="Serve predictions over HTTP and JSON too, at this port; 0 picks a free one. Triton's and KServe's REST "
            "clients work, and a browser shows what is here. Default: off.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Worker processes that share the gRPC port, at most one per core; auto is one per core. Default: 1.",
            show_default=False,
        ),
    ] = None,
    transport: Annotated[
        Literal["native", "completion-queue", "aio"] | None,
        typer.Option(
            metavar="NAME",
            help="native, which is fastest and the default; completion-queue or aio, which are gRPC's own and portable.",
            show_default=False,
        ),
    ] = None,
    allow_python: Annotated[
        bool | None,
        typer.Option(
            "--allow-python",
            envvar="PENSTOCK_PYTHON_ALLOW",
            help="Serve versions that run a whole pipeline in Python, each in a process of its own. Whoever may register "
            "versions can then run code on this server. Default: no.",
            show_default=False,
        ),
    ] = None,
    trace_endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Send OpenTelemetry traces of some requests to this collector, such as http://127.0.0.1:4318. Which requests, "
            "and by which protocol, is said in the settings file. Default: none.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        bool | None,
        typer.Option(
            "--labels",
            help="Take labels of requests with an id, and say how good each version is by them. Each answered row with an id "
            "then takes 84 bytes of disk. How long answers are kept is said in the settings file. Default: no.",
            show_default=False,
        ),
    ] = None,
    rollouts: Annotated[
        bool | None,
        typer.Option(
            "--rollouts",
            help="Act on the rollouts that the registry declares (`penstock rollout start`): this server then writes aliases "
            "and tags. Of several servers that may, one does. Default: no.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Settings in TOML. Options of the command line take precedence.", show_default=False
        ),
    ] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None,
        typer.Option(
            metavar="LEVEL",
            help="What is logged: debug, info, warning or error, and worse. Default: $PENSTOCK_LOG_LEVEL, else info.",
            show_default=False,
        ),
    ] = None,
    log_format: Annotated[
        Literal["auto", "console", "json"] | None,
        typer.Option(
            metavar="FORMAT",
            help="console for people, json for programs, or auto: console at a terminal. Default: $PENSTOCK_LOG_FORMAT, "
            "else auto.",
            show_default=False,
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Check the settings, the folders and the ports, start nothing, and exit with 0 or 1."
        ),
    ] = False,
) -> None:
    """Serves models over gRPC until Ctrl-C or SIGTERM.

    The server follows the registry: it loads, checks and serves a newly promoted version within seconds. The former
    version answers until then. While the registry is down, the server goes on with the versions that it has.

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
        rest_port=rest_port,
        workers=int(workers) if workers is not None and workers.isdecimal() else workers,
        transport=transport,
        allow_python=allow_python,
        trace_endpoint=trace_endpoint,
        labels=labels,
        rollouts=rollouts,
        config=config,
        log_level=log_level,
        log_format=log_format,
        only_check=check,
    )
