"""The console script `penstock`: runs a command, and turns an error into one sentence and an exit code.

Exit codes: 0 done, 1 it could not be done, 2 the command line is wrong, 130 interrupted. Each command imports what is heavy
when it runs, so that `--help` answers at once.
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

from penstock_tools.cli import errors


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs the command line and exits.

    Args:
        arguments: what follows the program's name; None for those of the process.
    """
    try:
        from penstock_tools.cli.app import app

        app(None if arguments is None else list(arguments), prog_name="penstock")
    except Exception as error:  # noqa: BLE001 - the one place where every failure of a command ends
        sys.exit(errors.report(error))
    sys.exit(0)


if __name__ == "__main__":
    main()
