"""Shows what a command is doing while it does it: a spinner in a terminal, one line per finished step everywhere.

It writes to standard error, since standard output is the command's answer and may go into a file.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

Report = Callable[[str], None]
"""Called with a sentence as each step begins."""

Advance = Callable[[int], None]
"""Called with how much was done since its last call."""


def unwatched(_done: int) -> None:
    """An `Advance` that shows nothing."""


@contextmanager
def steps(console: "Console | None" = None) -> Iterator[Report]:
    """A function to call with the name of each step as it begins.

    A finished step is printed with the seconds that it took. The step that an exception ends is not printed. The spinner
    starts with the first step, so that a question can be asked before it.

    Args:
        console: where to print; None for standard error.
    """
    from rich.console import Console
    from rich.markup import escape

    console = console or Console(stderr=True, highlight=False)
    status = console.status("")
    current: list[tuple[str, float]] = []

    def finish() -> None:
        if current:
            text, began = current.pop()
            took = f"{time.monotonic() - began:.1f} s"
            console.print(f"  [green]✓[/green] {escape(text)} [dim]{took}[/dim]", soft_wrap=True)

    def begin(text: str) -> None:
        finish()
        current.append((text, time.monotonic()))
        status.update(escape(text))
        status.start()

    try:
        yield begin
        finish()
    finally:
        status.stop()


class Bars:
    """Bars of how far long work is; `steps` is for work whose length is not known."""

    def __init__(self, progress: "Progress") -> None:
        self._progress = progress

    def begin(self, text: str, total: int | None = None) -> Advance:
        """Shows a bar, without an end where the total is not known.

        Returns:
            A function to call with how much was done since its last call.
        """
        task = self._progress.add_task(text, total=total)
        return lambda done: self._progress.advance(task, done)


@contextmanager
def bars(console: "Console | None" = None) -> Iterator[Bars]:
    """Bars, which go away at the end; nothing is shown but in a terminal.

    Args:
        console: where to draw; None for standard error.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = console or Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield Bars(progress)


@contextmanager
def watched() -> Iterator[Report]:
    """`steps` where a person looks on, in a terminal or a notebook; elsewhere nothing is shown."""
    if is_notebook():
        from rich.console import Console

        # rich draws in notebooks with widgets that may not be installed, and standard error is red there.
        with steps(Console(file=sys.stdout, force_jupyter=False, highlight=False)) as report:
            yield report
    elif sys.stderr.isatty():
        with steps() as report:
            yield report
    else:
        yield lambda _: None


def is_notebook() -> bool:
    """Whether this is a notebook's kernel."""
    return "ipykernel" in sys.modules
