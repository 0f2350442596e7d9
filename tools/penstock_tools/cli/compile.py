"""`penstock compile`: compiles the feature kernels, so that the first start need not."""

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator


def compile_kernels(
    *,
    baseline: Annotated[
        bool,
        typer.Option(
            "--baseline", help="Compile for every machine of this architecture, as releases do, not for this one alone."
        ),
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Where to write them. Default: where servers look for them.", show_default=False
        ),
    ] = None,
) -> None:
    r"""Compiles the feature kernels for this machine, which takes most of a minute, and says where they are.

    A server does so by itself, while it serves with the kernels of its release. Run this where the first server shall
    find them: in an image's build, or on a machine that has the same processor. It needs numba: [bold]pip install
    'penstock\\[compile]'[/bold].
    """
    from penstock_server.kernels import compiled, processor

    this = processor.this_processor()
    if baseline and this.architecture not in processor.BASELINES:
        raise typer.BadParameter(
            f"{this.architecture} has no baseline, expected one of {', '.join(processor.BASELINES)}"
        )
    path = output or (compiled.shipped_path(this.architecture) if baseline else compiled.own_path())
    if output is None and not baseline and compiled.find_own() is not None:
        typer.echo(f"the kernels for this machine are in {path}")
        return
    compiled.check_can_build(path)
    options = ["--progress", *(["--baseline"] if baseline else [])]
    command, environment = compiled.build_command(path, *options)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        _show_progress(process.stdout)
        said = process.stderr.read()
    if process.returncode != 0:
        from penstock_server.errors import UnavailableError

        raise UnavailableError(compiled.build_failure(process.returncode, said))
    typer.echo(f"the kernels for {f'{this.architecture} machines' if baseline else 'this machine'} are in {path}")


def _show_progress(functions: "Iterator[str]") -> None:
    """A bar in a terminal, a line elsewhere; ends when the compiler does."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from penstock_server.kernels.build import FUNCTIONS

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.print("compiling the feature kernels, which takes most of a minute")
    columns = (TextColumn("compiling the feature kernels"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=FUNCTIONS)
        for _ in functions:
            progress.advance(task)
