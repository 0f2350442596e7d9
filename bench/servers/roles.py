"""Penstock serving from a registry, with a canary and a shadow that get requests or that get none.

All versions are the same file, so that every answer can be checked, whichever version gave it.
"""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from penstock.names import CANARY, CHAMPION, SHADOW
from penstock_server.errors import PenstockError, UnavailableError
from penstock_server.kernel_sets import KERNEL_SETS
from penstock_server.kernels.compiled import own_path

PORTS: Final = ("--host", "127.0.0.1", "--port", "0", "--http-port", "0")
IDLE_MODEL: Final = "unasked"
"""A model that gets no requests."""

_CANARY_PERCENT: Final = 10


def penstock_command(*arguments: str) -> list[str]:
    """The `penstock` command of this environment with arguments."""
    return [str(Path(sys.executable).with_name("penstock")), *arguments]


def registry_in(folder: Path) -> tuple[str, dict[str, str]]:
    """The address of a registry in a folder, and the variables that keep Penstock's own files there too.

    The compiled kernels are there already, as they are after a server's first start.
    """
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    for kernels in KERNEL_SETS:
        if (compiled := own_path(kernels)).is_file():
            shutil.copy(compiled, cache)
    env = {"PENSTOCK_DATA_DIR": str(folder), "PENSTOCK_CACHE_DIR": str(cache)}
    return f"sqlite:///{folder / 'registry.db'}", env


def serve(folder: Path, files: Mapping[str, Path], *, are_idle: bool) -> list[str]:
    """Publishes the models and returns the command that serves them.

    Args:
        folder: where the registry is made.
        files: by model; each model gets a canary of 10 % and a shadow, unless the roles are idle.
        are_idle: the models have only a champion; one more model, without requests, has canary and shadow.

    Raises:
        UnavailableError: publishing failed.
    """
    folder.mkdir()
    registry, env = registry_in(folder)
    for model, alias, weight in plan(tuple(files), are_idle=are_idle):
        file = files[model] if model in files else next(iter(files.values()))
        publish(model, file, registry=registry, alias=alias, weight=weight)
    setting = [f"{name}={value}" for name, value in env.items()]
    return ["env", *setting, *penstock_command("serve", "--registry", registry, *PORTS, "--workers", "1")]


def plan(models: tuple[str, ...], *, are_idle: bool) -> list[tuple[str, str, float | None]]:
    """Model, role and weight of each version to publish, in order."""
    alone: list[tuple[str, str, float | None]] = [(model, CHAMPION, None) for model in models] if are_idle else []
    with_roles = (IDLE_MODEL,) if are_idle else models
    roles = ((CHAMPION, None), (CANARY, _CANARY_PERCENT), (SHADOW, None))
    return alone + [(model, alias, weight) for model in with_roles for alias, weight in roles]


def publish(model: str, file: Path, *, registry: str, alias: str, weight: float | None = None) -> None:
    """Publishes a file as a model's next version, with its role.

    Raises:
        UnavailableError: it failed; says why.
    """
    # In this process, not by the command: MLflow takes seconds to import, and so it is imported once for all versions.
    from penstock_tools.publish import onnx

    try:
        onnx.publish(model, file, registry=registry, alias=alias, weight=weight)
    except (PenstockError, OSError) as error:
        raise UnavailableError(f"publishing {model} failed: {error}") from error
