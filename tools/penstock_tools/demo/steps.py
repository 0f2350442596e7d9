"""The steps before the stream, as they are done: with a spinner and a clock at a terminal, a line each elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

Report = Callable[[str], None]


@contextmanager
def told(console: Console) -> Iterator[Report]:
    """A function to call with each step's name as it begins; the one before it is done then."""
    if not console.is_terminal:
        yield lambda step: console.print(Text(f"  {step}"), soft_wrap=True)
        return
    columns = (SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        current: list[TaskID] = []

        def report(step: str) -> None:
            _finish(progress, current)
            current.append(progress.add_task(escape(step), total=1))

        yield report
        _finish(progress, current)


def _finish(progress: Progress, current: list[TaskID]) -> None:
    while current:
        progress.update(current.pop(), completed=1)
