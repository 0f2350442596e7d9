"""Asks whether a file that can run code may be loaded, unless `--trust` agreed beforehand."""

import sys
from collections.abc import Callable


def asker(*, trusts: bool) -> Callable[[str], bool]:
    """A function that takes a warning and returns whether to go on.

    Args:
        trusts: agree to everything, and still show the warning. Otherwise the person at the terminal is asked; without a
            terminal the answer is no.
    """

    def agrees(warning: str) -> bool:
        if trusts:
            sys.stderr.write(f"penstock: {warning}\n")
            return True
        if not sys.stdin.isatty():
            return False
        import typer

        return typer.confirm(warning if warning.endswith("?") else f"{warning} Load it?", default=False, err=True)

    return agrees
