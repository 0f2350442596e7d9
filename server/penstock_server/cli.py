"""Runs a server with the options of `penstock serve`: reads its settings, sets up logging and the event loop."""

import asyncio
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from penstock_server import checks
from penstock_server.app import Addresses, check_ports, serve
from penstock_server.log_setup import LogFormat, LogLevel, configure_logging
from penstock_server.settings import ServerSettings, read_settings
from penstock_server.sources.registry import default_registry


def run(
    *,
    registry: str | None = None,
    models: Sequence[str] = (),
    model_repository: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    http_port: int | None = None,
    rest_port: int | None = None,
    workers: int | str | None = None,
    transport: str | None = None,
    allow_python: bool | None = None,
    trace_endpoint: str | None = None,
    labels: bool | None = None,
    rollouts: bool | None = None,
    config: Path | None = None,
    log_level: LogLevel | None = None,
    log_format: LogFormat | None = None,
    only_check: bool = False,
) -> None:
    """Serves until stopped. Options that are None are the settings file's, or the defaults.

    Without a registry and without a model repository it follows `MLFLOW_TRACKING_URI`, else the embedded registry. With
    `only_check` it starts nothing: it returns when the settings are valid here and the ports are free.

    Raises:
        PenstockError: a setting is wrong or a port is taken; the sentence says which.
    """
    settings = read_settings(
        config,
        registry=registry,
        models=tuple(models) or None,
        model_repository=model_repository,
        host=host,
        port=port,
        http_port=http_port,
        rest_port=rest_port,
        workers=workers,
        transport=transport,
    )
    if allow_python is not None:
        settings = replace(settings, python=replace(settings.python, allow=allow_python))
    if trace_endpoint is not None:
        settings = replace(settings, tracing=replace(settings.tracing, endpoint=trace_endpoint))
    if labels is not None:
        settings = replace(settings, labels=replace(settings.labels, enabled=labels))
    if rollouts is not None:
        settings = replace(settings, rollouts=replace(settings.rollouts, enabled=rollouts))
    if settings.registry is None and (settings.model_repository is None or "MLFLOW_TRACKING_URI" in os.environ):
        settings = replace(settings, registry=default_registry())
    if only_check:
        _check(settings)
        return
    configure_logging(log_level, log_format)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(settings, _announce))


def _check(settings: ServerSettings) -> None:
    checks.check(settings)
    check_ports(settings)
    for warning in checks.warnings(settings):
        sys.stdout.write(f"warning: {warning}\n")
    sys.stdout.write("a server can start with these settings\n")


def _announce(addresses: Addresses) -> None:
    served = ", ".join(addresses.served) or "no model yet"
    rest = f"  rest {addresses.rest}" if addresses.rest else ""
    lines = [
        f"penstock is ready: grpc {addresses.grpc}  http {addresses.http}{rest}  version {addresses.version}  serves {served}",
        *(f"  not served: {each}" for each in addresses.unserved),
    ]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
