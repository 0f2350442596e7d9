"""Whether a file that can run code may be loaded: said beforehand with `--trust`, or asked of the person at the terminal."""

import sys
from collections.abc import Callable


def asker(*, trusts: bool) -> Callable[[str], bool]:
    """Gives what is asked with a warning before such a file is loaded.

    Args:
        trusts: agrees to everything, and still shows the warning. Else a person is asked, and nobody there is a no.
    """

    def agrees(warning: str) -> bool:
        if trusts:
            sys.stderr.write(f"penstock: {warning}\n")
            return True
        if not sys.stdin.isatty():
            return False
        import typer

        return typer.confirm(f"{warning} Load it?", default=False, err=True)

    return agrees
