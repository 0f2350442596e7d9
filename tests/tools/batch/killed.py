"""Jobs that are killed at a moment: each call that changes something is one at which the process may be gone."""

import multiprocessing
import os
import signal
from pathlib import Path

from penstock_tools.batch.files import FilesOutput

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


class DeadlyOutput(FilesOutput):
    """Files whose first writers are killed, one after they wrote a part, the others before."""

    def __init__(self, marks, address, *, deaths, overwrites=False):
        super().__init__(address, overwrites=overwrites)
        self._marks, self._deaths = marks, deaths

    def write(self, answers, result):
        number = len(list(self._marks.iterdir()))
        dies = number < self._deaths and self._is_first(self._marks / str(number))
        if dies and number:
            os.kill(os.getpid(), signal.SIGKILL)
        super().write(answers, result)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def _is_first(mark: Path):
        try:
            mark.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True
