"""The rooms of the source and what each may import: the table that the tests hold and that the architecture page prints.

python -m tests.architecture          write the generated parts of server/ARCHITECTURE.md
python -m tests.architecture --check  fail when they are not fresh
"""

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parent.parent
SOURCES: Final = {
    "penstock": ROOT / "protos",
    "penstock_server": ROOT / "server",
    "penstock_client": ROOT / "client",
    "penstock_tools": ROOT / "tools",
    "penstock_conformance": ROOT / "tools",
}

GROUND: Final = {
    "errors",
    "clock",
    "call",
    "paths",
    "atomic",
    "cores",
    "frames",
    "leases",
    "lifeline",
    "log_setup",
    "memory",
    "parse",
    "per_model",
    "priority",
    "redirections",
    "sealed",
}
"""What every room of the server may import."""
TOOLS_GROUND: Final = {"formatting", "functions", "output", "progress", "server_process"}
"""What every room of the tools may import."""

ROOMS: Final[dict[str, dict[str, set[str]]]] = {
    "penstock_server": {
        **dict.fromkeys(GROUND, GROUND),
        "batching": GROUND,
        "rollout": GROUND,
        "capacity": GROUND | {"batching", "metrics"},
        "kernels": GROUND,
        "features.spec": GROUND,
        "features.cells": set(),
        "features.counting": {"features.cells"},
        "features.compiler": GROUND | {"features.spec", "features.cells", "features.counting"},
        "features.kernels": {
            "features.compiler.layout",
            "features.compiler.tree_layout",
            "features.counting",
            "kernels.base",
        },
        "features": GROUND | {"kernels"},
        "tracing.layout": {"call"},
        "tracing": GROUND,
        "metrics": GROUND | {"features", "tracing.layout", "rollout.shares"},
        "drift": GROUND | {"features", "metrics"},
        "kernel_sets": {
            "kernels",
            "features",
            "transport.kernel_set",
            "plain.kernel_set",
            "rest.kernel_set",
            "compiled_models.kernel_set",
        },
        "request_log": GROUND | {"metrics"},
        "page": GROUND | {"metrics"},
        "retraining": GROUND,
        "labels.layout": set(),
        "labels": GROUND | {"rollout"},
        "python": GROUND,
        "explain": GROUND | {"features", "kernels"},
        "compiled_models.layout": set(),
        "compiled_models.kernels": {"kernels.base", "compiled_models.layout"},
        "compiled_models": GROUND | {"kernels"},
        "models": GROUND | {"batching", "features", "drift", "explain", "python", "compiled_models", "kernels"},
        "response_cache.settings": GROUND,
        "response_cache": GROUND | {"models"},
        "sources": GROUND | {"kernels", "rollout", "models"},
        "access": GROUND | {"transport.interface", "transport.certificate"},
        "transport.layout": set(),
        "transport.kernels": {"kernels.base", "kernels.memory", "kernels.clock", "transport.layout"},
        "transport": GROUND | {"kernels"},
        "plain.layout": set(),
        "plain.kernels": {
            "kernels.base",
            "kernels.memory",
            "kernels.clock",
            "transport.layout",
            "plain.layout",
            "tracing.layout",
            "labels.layout",
            "features.counting",
            "features.compiler.layout",
            "compiled_models.layout",
            "compiled_models.choice",
        },
        "plain": GROUND | {"kernels", "tracing", "labels"},
        "prediction": GROUND
        | {"batching", "features", "rollout", "metrics", "request_log", "models", "plain", "transport.interface"}
        | {"response_cache", "tracing", "labels"},
        "services": GROUND
        | {"access", "plain", "tracing", "labels"}
        | {"prediction", "transport", "batching", "models.signature"},
        "rest.layout": set(),
        "rest.kernels": {"kernels.base", "kernels.memory", "transport.layout", "rest.layout"},
        "rest": GROUND | {"transport", "kernels"},
        "settings": GROUND
        | {
            "access.settings",
            "batching",
            "drift.report",
            "transport",
            "request_log",
            "tracing.settings",
            "labels.settings",
            "sources.settings",
            "control.settings",
            "control.verdict",
            "models.execution",
            "python.settings",
            "response_cache.settings",
            "retraining.settings",
            "rollout.settings",
        },
        "control": GROUND
        | {"batching", "kernels", "features", "rollout", "metrics", "drift", "models", "sources", "python"}
        | {"transport.shared_port", "transport.certificate", "transport.tls_files", "compiled_models.choice", "access"}
        | {"response_cache.settings", "tracing.span_file", "retraining.signals", "labels", "capacity"}
        | {"page"},
        "checks": GROUND
        | {"access.credentials"}
        | {"kernels", "models.execution", "models.onnx_model", "sources", "settings", "transport"}
        | {"tracing.layout", "tracing.settings"},
        "worker": GROUND
        | {"batching", "rollout", "metrics", "request_log", "models", "prediction", "transport", "services", "control"}
        | {"settings", "kernels", "plain", "access", "rest", "response_cache", "tracing", "labels"},
        "source_process": GROUND | {"sources"},
        "airlock": GROUND | {"batching", "models", "control.verdict", "response_cache"},
        "app": GROUND
        | {"metrics", "drift", "request_log", "sources", "control", "settings", "checks"}
        | {"transport", "plain.kernel_set", "rest.kernel_set", "compiled_models.kernel_set", "access", "tracing"}
        | {"retraining", "labels", "rollout", "capacity"},
        "cli": GROUND | {"sources", "settings", "checks", "app"},
    },
    "penstock_tools": {
        **dict.fromkeys(TOOLS_GROUND, TOOLS_GROUND),
        "sklearn_compiler": TOOLS_GROUND,
        "client_commands": TOOLS_GROUND,
        "explain": TOOLS_GROUND | {"sklearn_compiler"},
        "publish": TOOLS_GROUND | {"sklearn_compiler", "explain"},
        "drift": TOOLS_GROUND | {"client_commands"},
        "rollout": TOOLS_GROUND | {"client_commands"},
        "calibration": TOOLS_GROUND | {"publish"},
        "replay": TOOLS_GROUND | {"publish", "calibration"},
        "batch": TOOLS_GROUND | {"publish", "drift"},
        "pipelines": {"publish"},
        "config": TOOLS_GROUND,
        "dashboards": TOOLS_GROUND,
        "demo": TOOLS_GROUND | {"publish", "client_commands", "replay"},
        "stream": TOOLS_GROUND | {"batch"},
        "cli": TOOLS_GROUND
        | {"publish", "client_commands", "drift", "rollout", "calibration", "demo", "replay", "config"}
        | {"stream", "batch"},
    },
}
"""What each room may import of its own package; itself always. A place inside a room may have a rule of its own."""

PACKAGES: Final[dict[str, set[str]]] = {
    "penstock": {"penstock"},
    "penstock_server": {"penstock", "penstock_server"},
    "penstock_client": {"penstock", "penstock_client"},
    "penstock_tools": {"penstock", "penstock_server", "penstock_client", "penstock_tools"},
    # It judges servers, so it shares nothing with one but the messages.
    "penstock_conformance": {"penstock", "penstock_conformance"},
}

DOORS: Final[dict[str, set[str]]] = {
    "grpc": {
        "penstock_server.transport",
        "penstock_server.tracing.collector",
        "penstock_client",
        "penstock_conformance",
    },
    "httptools": {"penstock_server.rest.http"},
    "swagger_ui_bundle": {"penstock_server.rest.openapi"},
    "grpc_health": {"penstock_server.services"},
    "grpc_reflection": {"penstock_server.services"},
    "grpc_tools": {"penstock.generate"},
    "onnxruntime": {"penstock_server.models.onnx_model", "penstock_tools.publish.reduced"},
    "mlflow": {"penstock_server.sources.mlflow_client", "penstock_tools"},
    "numba": {"penstock_server.kernels", "penstock_server.features.kernels", "penstock_server.compiled_models.kernels"},
    "llvmlite": {
        "penstock_server.kernels",
        "penstock_server.features.kernels",
        "penstock_server.compiled_models.kernels",
    },
    "yaml": {"penstock_server.features.spec.yaml_text", "penstock_server.sources.flavours"},
    "prometheus_client": {
        "penstock_server.metrics.prometheus",
        "penstock_server.drift.gauges",
        "penstock_server.retraining.gauges",
        "penstock_server.labels.gauges",
        "penstock_server.capacity.gauges",
        "penstock_server.control.rollout_gauges",
        "penstock_server.control.experiment_gauges",
        "penstock_server.control.evidence_gauges",
        "penstock_server.control.residency_gauges",
        "penstock_server.control.webhook_gauges",
        "penstock_server.control.http",
        "penstock_tools.demo",
        "penstock_tools.client_commands.top",
        "penstock_tools.stream.meter",
        "penstock_tools.stream.status",
    },
    "confluent_kafka": {
        "penstock_tools.stream.kafka",
        "penstock_tools.stream.schemas",
        "penstock_tools.stream.command",
    },
    "fastavro": {"penstock_tools.stream.schemas", "penstock_tools.stream.avro_rows"},
    "pyarrow": {"penstock_server.request_log.parquet", "penstock_tools"},
    "uvloop": {"penstock_server.transport", "penstock_server.cli", "penstock_server.app"},
    "onnx": {"penstock_tools", "penstock_conformance.contract"},
    "sklearn": {"penstock_tools", "penstock_server.python.process"},
    "skops": {"penstock_tools", "penstock_server.python.process"},
    "skl2onnx": {"penstock_tools"},
    "spox": {"penstock_tools.sklearn_compiler"},
    "pandas": {"penstock_tools", "penstock_server.python"},
    "jwt": {"penstock_server.access.jwt_tokens"},
    "cryptography": {"penstock_server.access.jwt_tokens"},
    "opentelemetry": {"penstock_server.tracing.otlp", "penstock_server.tracing.collector", "penstock_client.headers"},
    "typer": {"penstock_tools", "penstock_server.cli"},
    "grafana_foundation_sdk": {"penstock_tools.dashboards.grafana"},
}
"""The modules and packages through which each library comes in."""


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the packages, by its dotted name."""
    for package, root in SOURCES.items():
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES: Final = dict(modules())


class Outline(NamedTuple):
    """What the tests ask of every module: a tree of each would be kept for long, or made for each question."""

    imports: set[str]
    classes: list[str]


def imports(name: str) -> set[str]:
    """The dotted names that a module imports: wherever in it, and by `importlib.import_module` of a literal too."""
    return _outline(name).imports


def classes(name: str) -> list[str]:
    """The public classes of a module."""
    return _outline(name).classes


@cache
def _outline(name: str) -> Outline:
    tree = ast.parse(MODULES[name].read_text())
    public = [node.name for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    return Outline(_imports(name, tree), public)


def _imports(name: str, tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                found |= {alias.name for alias in node.names}
            case ast.ImportFrom(level=0, module=str(module)):
                found |= {f"{module}.{alias.name}" for alias in node.names}
            case ast.ImportFrom():
                raise ValueError(f"{name} has a relative import; expected the module's whole name")
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(module)), *_]):
                found.add(module)
    return found


@lru_cache(maxsize=8)  # names are asked for in their order
def _tree(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text())


def imported_modules(name: str) -> set[str]:
    """The modules of ours among a module's imports: `from a.b import c` is `a.b.c` if that is one, else `a.b`."""
    found = set()
    for one in imports(name):
        for candidate in (one, one.rpartition(".")[0]):
            if candidate in MODULES:
                found.add(candidate)
                break
    return found


def is_within(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def inside(name: str) -> str:
    """A module's name without its package's."""
    return name.partition(".")[2]


def place(name: str) -> str:
    """The narrowest place that has a rule and holds this module; "" for none."""
    rules = ROOMS[name.partition(".")[0]]
    return max((place for place in rules if is_within(inside(name), {place})), key=len, default="")


def housed() -> list[str]:
    """The modules that belong to a room."""
    return sorted(name for name in MODULES if name.partition(".")[0] in ROOMS and "." in name)


PAGE: Final = ROOT / "server" / "ARCHITECTURE.md"
_PART: Final = re.compile(r"(<!-- generated: (?P<name>[a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_NAME: Final = re.compile(r"`((?:[a-z_]+\.)+[A-Za-z_.]+)`")


def below(package: str, room: str) -> set[str]:
    """The rooms that a room may import; the ground is left out."""
    return {each.partition(".")[0] for each in ROOMS[package][room]} - {room} - GROUND - TOOLS_GROUND


def rooms(package: str) -> list[str]:
    """The rooms of a package from the highest to the lowest: each stands above all that it may import."""

    @cache
    def height(room: str) -> int:
        return 1 + max(map(height, below(package, room)), default=-1)

    first = [name for name in ROOMS[package] if "." not in name and name not in GROUND | TOOLS_GROUND]
    return sorted(first, key=lambda room: (-height(room), room))


def direct(package: str, room: str) -> list[str]:
    """The rooms that a room may import, less those that it reaches through another of them."""

    def reach(each: str) -> set[str]:
        return below(package, each).union(*map(reach, below(package, each)))

    own = below(package, room)
    return sorted(own.difference(*map(reach, own)))


def purpose(name: str) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(MODULES[name].read_text())) or ""
    return " ".join(text.split("\n\n")[0].split())


def room_map(package: str) -> str:
    """The rooms of a package, each with its files and what it may import."""
    lines = []
    for room in rooms(package):
        name = f"{package}.{room}"
        may = ", ".join(f"`{each}`" for each in sorted(below(package, room)))
        lines += ["", f"### `{room}`", "", f"{purpose(name)} May import {may or 'the ground alone'}.", ""]
        files = [each for each in MODULES if each.startswith(f"{name}.") and not _is_package(each)]
        lines += [f"- `{_written(each)}`: {purpose(each)}" for each in files]
    ground = sorted(each for each in ROOMS[package] if each in GROUND | TOOLS_GROUND)
    lines += ["", "### The ground, which every room may import", ""]
    lines += [f"- `{_written(f'{package}.{each}')}`: {purpose(f'{package}.{each}')}" for each in ground]
    return "\n".join(lines).strip() + "\n"


def picture(package: str) -> str:
    """The rooms and their arrows as a Mermaid diagram; arrows that follow from others are left out."""
    arrows = [f"    {room} --> {each}" for room in rooms(package) for each in direct(package, room)]
    return "\n".join(["```mermaid", "flowchart TD", *arrows, "```"]) + "\n"


def doors() -> str:
    """A table of the libraries and the modules through which each comes in."""
    rows = [
        f"| `{library}` | {', '.join(f'`{each}`' for each in sorted(places))} |" for library, places in DOORS.items()
    ]
    return "\n".join(["| library | only in |", "|---|---|", *rows]) + "\n"


def page() -> str:
    """The architecture page with its generated parts written again."""
    parts = {
        "server-picture": picture("penstock_server"),
        "server-rooms": room_map("penstock_server"),
        "tools-picture": picture("penstock_tools"),
        "tools-rooms": room_map("penstock_tools"),
        "doors": doors(),
    }
    return _PART.sub(lambda found: found[1] + parts[found["name"]] + found[3], PAGE.read_text())


def names(text: str) -> set[str]:
    """The dotted names in a page's code spans that belong to our packages, whole or from the server's root."""
    return {found for found in _NAME.findall(text) if _whole(found) is not None}


def is_there(name: str) -> bool:
    """Whether a dotted name of ours is a module, or something in one: `room.module.Class.method`."""
    whole = _whole(name) or name
    module, rest = whole, ""
    while module and module not in MODULES:
        module, _, last = module.rpartition(".")
        rest = f"{last}.{rest}" if rest else last
    if not rest:
        return module in MODULES
    tree: ast.AST = _tree(module)
    for part in rest.split("."):
        inner = _defined(tree).get(part)
        if inner is None:
            return False
        tree = inner
    return True


def _defined(tree: ast.AST) -> dict[str, ast.AST]:
    """What a module or a class defines, by name."""
    found: dict[str, ast.AST] = {}
    for node in getattr(tree, "body", []):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = node
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]):
                found[name] = node
    return found


def _whole(name: str) -> str | None:
    first = name.partition(".")[0]
    if first in SOURCES:
        return name
    return f"penstock_server.{name}" if f"penstock_server.{first}" in MODULES else None


def _written(name: str) -> str:
    """A module's name as the page has it: from the server's root, or whole."""
    return name.removeprefix("penstock_server.")


def _is_package(name: str) -> bool:
    return MODULES[name].name == "__init__.py"


def main(arguments: Iterable[str]) -> int:
    """Writes the page, or checks it."""
    fresh = page()
    if "--check" in arguments:
        return int(fresh != PAGE.read_text())
    PAGE.write_text(fresh)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
