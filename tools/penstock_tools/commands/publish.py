"""`penstock publish`: registers an ONNX file as a model's next version."""

from pathlib import Path
from typing import Annotated

import typer

from penstock_tools.commands.options import ModelName, Registry, Weight


def publish(
    name: ModelName,
    file: Annotated[Path, typer.Argument(metavar="FILE.onnx", help="The ONNX model.", show_default=False)],
    alias: Annotated[
        str | None,
        typer.Option(metavar="A", help="The role to give it: champion, canary or shadow.", show_default=False),
    ] = None,
    weight: Weight = None,
    registry: Registry = None,
) -> None:
    """Registers an ONNX file as the next version of a model.

    The file is checked first: it must be valid ONNX that onnxruntime loads. Class names are read from the graph.
    Servers that follow the registry load it once it has a role.

    Example: [bold]penstock publish fraud fraud.onnx --alias canary --weight 5[/bold]
    """
    from penstock_tools import publish as publishing

    version = publishing.publish(name, file, registry=registry, alias=alias, weight=weight)
    if alias is None:
        typer.echo(
            f"{name} version {version} is registered; it is served once you run: penstock promote {name} {version}"
        )
    else:
        share = "" if weight is None else f" with {weight:g}% of the traffic"
        typer.echo(f"{name} version {version} is registered and is now {alias}{share}")
