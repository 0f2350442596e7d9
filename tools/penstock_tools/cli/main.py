"""The console script `penstock`: runs a command, and turns an error into one sentence and an exit code.

Exit codes: 0 done, 1 it could not be done, 2 the command line is wrong, 130 interrupted. Each command imports what is heavy
when it runs, so that `--help` answers at once.
"""

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from penstock_tools.cli import errors

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits.

    Args:
        arguments: what follows the program's name; None for those of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _runner()(given)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write("penstock: interrupted\n")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        _let_go_of_stdout()
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - the one place where every failure of a command ends
        sys.exit(errors.report(error))
    sys.exit(0)


def _runner() -> Callable[[list[str]], object]:
    """The whole command line, or the client's where only that is installed."""
    try:
        import typer  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "typer":
            raise
        from penstock_tools.cli.client_only import run

        return run
    from penstock_tools.cli.app import app

    return lambda given: app(given, prog_name="penstock")


def _let_go_of_stdout() -> None:
    # Who read it has gone, such as `head`. Python would flush the rest at its end, and complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
