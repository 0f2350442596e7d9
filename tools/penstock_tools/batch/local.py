"""The local engine: parts scored by processes of this machine, and again by others if one is killed."""

import multiprocessing
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Final

from penstock_server.errors import UnavailableError
from penstock_tools.batch.job import Part, PartResult, Recipe
from penstock_tools.batch.worker import Worker

MOST_DEATHS: Final = 3
"""Deaths of processes in a job, after which it is not the machine's fault."""
_worker: Worker | None = None


def run(parts: Iterable[Part], recipe: Recipe, processes: int) -> Iterator[PartResult]:
    """The results of parts, as they come.

    Raises:
        InvalidInputError: as `Worker.score`.
        UnavailableError: the same; or processes were killed again and again.
    """
    if processes == 1:
        worker = Worker(recipe)
        try:
            yield from map(worker.score, parts)
        finally:
            worker.close()
        return
    source = iter(parts)
    running: dict[Future[PartResult], Part] = {}
    again: list[Part] = []
    deaths = 0
    while True:
        with ProcessPoolExecutor(
            processes, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(recipe,)
        ) as pool:
            try:
                while True:
                    while len(running) < 2 * processes and (part := again.pop() if again else next(source, None)):
                        running[pool.submit(_score, part)] = part
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        result = future.result()
                        del running[future]
                        yield result
            except BrokenProcessPool as error:
                deaths += 1
                if deaths > MOST_DEATHS:
                    raise UnavailableError(
                        f"processes that score were killed {deaths} times, perhaps for want of memory; --processes and "
                        "--part-rows make a job smaller"
                    ) from error
                # A part whose result was written is not written again.
                again += running.values()
                running.clear()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _begin(recipe: Recipe) -> None:
    import pyarrow as pa

    global _worker  # noqa: PLW0603 - one per process, which does nothing else
    pa.set_cpu_count(1)
    _worker = Worker(recipe)


def _score(part: Part) -> PartResult:
    if _worker is None:
        raise RuntimeError("the process has not begun")
    return _worker.score(part)
