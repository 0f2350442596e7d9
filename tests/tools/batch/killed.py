"""Jobs that are killed at a moment: each call that changes something is one at which the process may be gone."""

import multiprocessing
import os
import signal

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["penstock_tools.batch.run", "penstock_tools.batch.database", "tests.tools.batch.killed"]
)


def _job(moment, arguments):
    from penstock_tools import progress
    from penstock_tools.batch import database, files
    from penstock_tools.batch.run import Request, run

    left = moment

    def dying(function):
        def call(*given, **options):
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*given, **options)

        return call

    files.FilesOutput._write = dying(files.FilesOutput._write)
    files.FilesOutput._remove = dying(files.FilesOutput._remove)
    files.os.rename = dying(files.os.rename)
    files.os.replace = dying(files.os.replace)
    database._insert = dying(database._insert)
    database.TableOutput._begun = dying(database.TableOutput._begun)
    database.sa.Table.drop = dying(database.sa.Table.drop)
    with progress.bars() as bars:
        run(Request(*arguments, processes=1, part_rows=1000, key=("id",), keep=("*",)), bars)


def attempt(moment, *arguments):
    """Runs a job in a process that kills itself at its n-th change; gives whether it came to its end."""
    process = _context.Process(target=_job, args=(moment, tuple(map(str, arguments))))
    process.start()
    process.join(100)
    assert process.exitcode in (0, -signal.SIGKILL), (
        f"it ended with {process.exitcode}; its error is in what it printed"
    )
    return process.exitcode == 0
