"""The directions of imports, and the one door of each library: what `server/penstock_server` promises of itself."""

import ast
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
SOURCES: Final = {
    "penstock": ROOT / "protos",
    "penstock_server": ROOT / "server",
    "penstock_client": ROOT / "client",
    "penstock_tools": ROOT / "tools",
}

GROUND: Final = {"errors", "clock", "call", "paths", "atomic", "log_setup"}
MAY_IMPORT: Final[dict[str, set[str]]] = {
    **dict.fromkeys(GROUND, GROUND),
    "batching": GROUND,
    "rollout": GROUND,
    "features.spec": GROUND,
    "features.cells": set(),
    "features.counting": {"features.cells"},
    "features.compiler": GROUND | {"features.spec", "features.cells", "features.counting"},
    "features.kernels": {"features.compiler.layout", "features.counting"},
    "features": GROUND,
    "metrics": GROUND | {"features"},
    "drift": GROUND | {"features", "metrics"},
    "request_log": GROUND,
    "models": GROUND | {"batching", "features", "drift"},
    "sources": GROUND | {"rollout", "models"},
    "prediction": GROUND | {"batching", "features", "rollout", "models"},
    "transport": GROUND,
    "services": GROUND | {"prediction", "transport"},
    "control": GROUND | {"rollout", "metrics", "drift", "models", "sources"},
    "settings": GROUND | {"batching", "transport", "request_log"},
    "worker": GROUND
    | {"batching", "features", "rollout", "metrics", "drift", "request_log", "models", "prediction", "transport"}
    | {"services", "control", "settings"},
    "app": GROUND | {"features", "metrics", "drift", "request_log", "sources", "control", "settings"},
    "cli": GROUND | {"sources", "settings", "app"},
}
"""For each room, and each place in a room that has a rule of its own, what it may import; what is in itself always."""

PACKAGES: Final[dict[str, set[str]]] = {
    "penstock": {"penstock"},
    "penstock_server": {"penstock", "penstock_server"},
    "penstock_client": {"penstock", "penstock_client"},
    "penstock_tools": {"penstock", "penstock_server", "penstock_client", "penstock_tools"},
}

DOORS: Final[dict[str, set[str]]] = {
    "grpc": {"penstock_server.transport", "penstock_client"},
    "grpc_health": {"penstock_server.services"},
    "grpc_reflection": {"penstock_server.services"},
    "grpc_tools": {"penstock.generate"},
    "onnxruntime": {"penstock_server.models.onnx_model"},
    "mlflow": {"penstock_server.sources.mlflow_client", "penstock_tools"},
    "numba": {"penstock_server.features"},
    "llvmlite": {"penstock_server.features"},
    "yaml": {"penstock_server.features.spec.yaml_text"},
    "prometheus_client": {
        "penstock_server.metrics.prometheus",
        "penstock_server.drift.gauges",
        "penstock_server.control.http",
        "penstock_tools.demo",
    },
    "aiohttp": {"penstock_server.control.http"},
    "pyarrow": {"penstock_server.request_log.parquet", "penstock_tools"},
    "uvloop": {"penstock_server.transport", "penstock_server.cli", "penstock_server.app"},
    "onnx": {"penstock_tools"},
    "sklearn": {"penstock_tools"},
    "skl2onnx": {"penstock_tools"},
    "pandas": {"penstock_tools"},
    "typer": {"penstock_tools", "penstock_server.cli"},
}
"""The modules and packages through which each library comes in."""


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the four packages, by its dotted name."""
    for package, root in SOURCES.items():
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES: Final = dict(modules())


def imports(name: str) -> set[str]:
    """The dotted names that a module imports: wherever in it, and by `importlib.import_module` of a literal too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text())):
        match node:
            case ast.Import():
                found |= {alias.name for alias in node.names}
            case ast.ImportFrom(level=0, module=str(module)):
                found |= {f"{module}.{alias.name}" for alias in node.names}
            case ast.ImportFrom():
                pytest.fail(f"{name} has a relative import; expected the module's whole name")
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(module)), *_]):
                found.add(module)
    return found


IMPORTS: Final = {name: imports(name) for name in MODULES}


def imported_modules(name: str) -> set[str]:
    """The modules of ours among a module's imports: `from a.b import c` is `a.b.c` if that is one, else `a.b`."""
    found = set()
    for one in IMPORTS[name]:
        for candidate in (one, one.rpartition(".")[0]):
            if candidate in MODULES:
                found.add(candidate)
                break
    return found


def is_within(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def in_server(name: str) -> str:
    return name.removeprefix("penstock_server.")


def place(name: str) -> str:
    """The narrowest place of the table that a module of the server is in."""
    return max((place for place in MAY_IMPORT if is_within(in_server(name), {place})), key=len, default="")


SERVER: Final = sorted(name for name in MODULES if name.startswith("penstock_server."))


def test_the_packages_are_found() -> None:
    assert {name.partition(".")[0] for name in MODULES} == set(SOURCES)
    assert "penstock_server.errors" in imported_modules("penstock_server.call")


def test_every_room_has_its_place() -> None:
    assert [name for name in SERVER if not place(name)] == []


def test_every_place_is_there() -> None:
    assert [place for place in MAY_IMPORT if f"penstock_server.{place}" not in MODULES] == []


@pytest.mark.parametrize("name", SERVER)
def test_rooms_import_downwards(name: str) -> None:
    ours = {in_server(one) for one in imported_modules(name) if one.startswith("penstock_server.")}
    allowed = MAY_IMPORT[place(name)] | {place(name)}
    assert sorted(one for one in ours if not is_within(one, allowed)) == []


@pytest.mark.parametrize("name", MODULES)
def test_packages_import_downwards(name: str) -> None:
    ours = {one.partition(".")[0] for one in IMPORTS[name]} & SOURCES.keys()
    assert ours <= PACKAGES[name.partition(".")[0]]


@pytest.mark.parametrize("library", DOORS)
def test_a_library_comes_in_by_its_door(library: str) -> None:
    users = {name for name in MODULES if any(one.partition(".")[0] == library for one in IMPORTS[name])}
    assert [name for name in sorted(users) if not is_within(name, DOORS[library])] == []


@pytest.mark.parametrize("name", sorted(GROUND - {"log_setup"}))
def test_the_ground_needs_the_standard_library_alone(name: str) -> None:
    others = {one.partition(".")[0] for one in IMPORTS[f"penstock_server.{name}"]} - {"penstock_server"}
    assert others <= sys.stdlib_module_names


def test_nobody_waits_for_himself() -> None:
    try:
        TopologicalSorter({name: imported_modules(name) - {name} for name in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(f"these import each other: {' -> '.join(error.args[1])}")


def test_no_package_imports_its_own_root() -> None:
    offenders = [
        name
        for name in MODULES
        for one in IMPORTS[name]
        if one in SOURCES or (one.count(".") == 1 and one.partition(".")[0] in SOURCES and one not in MODULES)
    ]
    assert [name for name in offenders if name.partition(".")[0] != "penstock_tools"] == []
