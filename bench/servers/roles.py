"""Penstock serving from a registry, with a canary and a shadow that work or that idle; and the `penstock` command.

All versions are the same file, so that every answer can be checked whoever gave it. Called by `servers` and
`promotions`.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

PORTS: Final = ("--host", "127.0.0.1", "--port", "0", "--http-port", "0")
IDLE: Final = "unasked"
"""A model that nobody asks."""

_CANARY_PERCENT: Final = 10


class ServerError(Exception):
    """A server did not start, or had nothing to serve."""


def penstock_command(*arguments: str) -> list[str]:
    """The `penstock` command of this environment with arguments."""
    return [str(Path(sys.executable).with_name("penstock")), *arguments]


def serve(folder: Path, files: Mapping[str, Path], *, are_idle: bool) -> list[str]:
    """Publishes the models and returns the command that serves them.

    Args:
        folder: where the registry is made.
        files: by model; each has a canary of 10 % and a shadow if these are not idle.
        are_idle: the models are champions alone, and a further model, unasked, has canary and shadow.

    Raises:
        ServerError: publishing failed.
    """
    folder.mkdir()
    registry = f"sqlite:///{folder / 'registry.db'}"
    env = {"PENSTOCK_DATA_DIR": str(folder), "PENSTOCK_CACHE_DIR": str(folder / "cache")}
    for model, alias, weight in plan(tuple(files), are_idle=are_idle):
        file = files[model] if model in files else next(iter(files.values()))
        publish(model, file, registry=registry, alias=alias, weight=weight)
    setting = [f"{name}={value}" for name, value in env.items()]
    return ["env", *setting, *penstock_command("serve", "--registry", registry, *PORTS, "--workers", "1")]


def plan(models: tuple[str, ...], *, are_idle: bool) -> list[tuple[str, str, float | None]]:
    """Model, role and weight of each version to publish, in order."""
    alone: list[tuple[str, str, float | None]] = [(model, "champion", None) for model in models] if are_idle else []
    with_roles = (IDLE,) if are_idle else models
    roles = (("champion", None), ("canary", _CANARY_PERCENT), ("shadow", None))
    return alone + [(model, alias, weight) for model in with_roles for alias, weight in roles]


def publish(model: str, file: Path, *, registry: str, alias: str, weight: float | None = None) -> None:
    """Publishes a file as a model's next version, with its role.

    Raises:
        ServerError: it failed; says why.
    """
    # In this process: MLflow takes seconds to import, once instead of for each version.
    from penstock_server.errors import PenstockError
    from penstock_tools.publish import onnx as tool

    try:
        tool.publish(model, file, registry=registry, alias=alias, weight=weight)
    except (PenstockError, OSError) as error:
        raise ServerError(f"publishing {model} failed: {error}") from error
