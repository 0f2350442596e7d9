"""`penstock compile`: compiles all kernels, so that the first start need not."""

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.progress import Progress

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
    r"""Compiles the kernels for this machine, which takes about a minute on two cores, and says where they are.

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
    paths = {
        kernels: compiled.shipped_path(kernels, this.architecture) if baseline else compiled.own_path(kernels)
        for kernels in KERNEL_SETS
    }
    if output is not None:
        paths = {kernels: output / path.name for kernels, path in paths.items()}
    always = output is not None or baseline
    _compile_all(
        {kernels: path for kernels, path in paths.items() if always or compiled.find_own(kernels) is None},
        baseline=baseline,
    )
    machines = f"{this.architecture} machines" if baseline else "this machine"
    for kernels, path in paths.items():
        typer.echo(f"the {kernels.title} for {machines} are in {path}")


def _compile_all(missing: "Mapping[KernelSet, Path]", *, baseline: bool) -> None:
    """Compiles a set on each core, first those of the most functions, so that none begins when the others are done."""
    from concurrent.futures import ThreadPoolExecutor

    from penstock_server.cores import cores
    from penstock_server.kernels import compiled

    for kernels, path in missing.items():
        compiled.check_can_build(kernels, path)
    ordered = sorted(missing, key=lambda kernels: -kernels.functions)
    with _progress() as progress, ThreadPoolExecutor(cores()) as pool:
        compiling = [pool.submit(_compile, each, missing[each], progress, baseline=baseline) for each in ordered]
        try:
            for each in compiling:
                each.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _compile(kernels: "KernelSet", path: Path, progress: "Progress", *, baseline: bool) -> None:
    from penstock_server.errors import UnavailableError
    from penstock_server.kernels import compiled

    what = f"compiling the {kernels.title}"
    if not progress.console.is_terminal:
        progress.console.print(f"{what}, which takes up to a minute")
    task = progress.add_task(what, total=kernels.functions)
    options = ["--progress", *(["--baseline"] if baseline else [])]
    command, environment = compiled.build_command(kernels, path, *options)
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        for _ in process.stdout:  # a line for each function
            progress.advance(task)
        said = process.stderr.read()
    if process.returncode != 0:
        raise UnavailableError(compiled.build_failure(kernels, process.returncode, said))


def _progress() -> "Progress":
    """A bar for each set in a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)
