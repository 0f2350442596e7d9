"""`penstock compile`: compiles all kernels, so that the first start need not."""

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from penstock_server.kernels.kernel_set import KernelSet


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
            metavar="FOLDER", help="Where to write them. Default: where servers look for them.", show_default=False
        ),
    ] = None,
) -> None:
    r"""Compiles the kernels for this machine, which takes most of a minute, and says where they are.

    A server does so by itself, while it serves with the kernels of its release. Run this where the first server shall
    find them: in an image's build, or on a machine that has the same processor. It needs numba: [bold]pip install
    'penstock\\[compile]'[/bold].
    """
    from penstock_server.kernel_sets import KERNEL_SETS
    from penstock_server.kernels import compiled, processor

    this = processor.this_processor()
    if baseline and this.architecture not in processor.BASELINES:
        raise typer.BadParameter(
            f"{this.architecture} has no baseline, expected one of {', '.join(processor.BASELINES)}"
        )
    for kernels in KERNEL_SETS:
        path = compiled.shipped_path(kernels, this.architecture) if baseline else compiled.own_path(kernels)
        if output is not None:
            path = output / path.name
        if output is not None or baseline or compiled.find_own(kernels) is None:
            _compile(kernels, path, baseline=baseline)
        machines = f"{this.architecture} machines" if baseline else "this machine"
        typer.echo(f"the {kernels.title} for {machines} are in {path}")


def _compile(kernels: "KernelSet", path: Path, *, baseline: bool) -> None:
    from penstock_server.errors import UnavailableError
    from penstock_server.kernels import compiled

    compiled.check_can_build(kernels, path)
    options = ["--progress", *(["--baseline"] if baseline else [])]
    command, environment = compiled.build_command(kernels, path, *options)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        _show_progress(kernels, process.stdout)
        said = process.stderr.read()
    if process.returncode != 0:
        raise UnavailableError(compiled.build_failure(kernels, process.returncode, said))


def _show_progress(kernels: "KernelSet", functions: "Iterator[str]") -> None:
    """A bar in a terminal, a line elsewhere; ends when the compiler does."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    what = f"compiling the {kernels.title}"
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        console.print(f"{what}, which takes up to a minute")
    columns = (TextColumn(what), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=kernels.functions)
        for _ in functions:
            progress.advance(task)
