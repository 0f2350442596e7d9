"""What a command is doing, told on standard error while it does it: a spinner in a terminal, lines elsewhere.

Standard output is left to the command's answer, which may go into a file.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Gives what takes the next step's sentence; a step that is done shows how long it took."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True, highlight=False)
    current: list[tuple[str, float]] = []

    def close() -> None:
        if current:
            text, began = current.pop()
            console.print(f"  [green]✓[/green] {escape(text)} [dim]{time.monotonic() - began:.1f} s[/dim]")

    with console.status("") as status:

        def tell(text: str) -> None:
            close()
            current.append((text, time.monotonic()))
            status.update(escape(text))

        yield tell
        close()
