import asyncio
from itertools import count

import pytest

from penstock_server.control.spare import Spare
from penstock_server.errors import UnavailableError


class Processes:
    """Starts numbers, and notes those that were ended."""

    def __init__(self) -> None:
        self.ended: list[int] = []
        self.dead: set[int] = set()
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.failure: Exception | None = None
        self._numbers = count(1)

    async def start(self) -> int:
        await self.may_start.wait()
        if self.failure is not None:
            raise self.failure
        return next(self._numbers)

    def spare(self) -> Spare[int]:
        return Spare(self.start, self.ended.append, lambda number: number not in self.dead)


async def started(spare: Spare[int]) -> None:
    assert spare._starting is not None
    await asyncio.wait_for(spare._starting, 10.0)


async def test_the_one_that_waits_is_taken_first() -> None:
    processes = Processes()
    spare = processes.spare()
    assert await spare.take() == 1
    spare.prepare()
    spare.prepare()
    await started(spare)
    spare.prepare()
    assert await spare.take() == 2
    assert await spare.take() == 3
    assert processes.ended == []


async def test_one_that_has_died_is_not_used() -> None:
    processes = Processes()
    spare = processes.spare()
    spare.prepare()
    await started(spare)
    processes.dead.add(1)
    assert await spare.take() == 2
    assert processes.ended == [1]


@pytest.mark.parametrize(
    "failure", [OSError(24, "none left"), MemoryError(), UnavailableError("the server is stopping")]
)
async def test_one_that_cannot_be_started_is_started_when_it_is_needed(failure: Exception) -> None:
    processes = Processes()
    spare = processes.spare()
    processes.failure = failure
    spare.prepare()
    await started(spare)
    with pytest.raises(type(failure)):
        await spare.take()
    processes.failure = None
    assert await spare.take() == 1


async def test_one_that_is_discarded_while_it_starts_is_ended() -> None:
    processes = Processes()
    processes.may_start.clear()
    spare = processes.spare()
    spare.prepare()
    await asyncio.sleep(0)
    spare.discard()
    processes.may_start.set()
    await started(spare)
    assert (spare.process, processes.ended) == (None, [1])


async def test_nothing_is_started_after_the_close() -> None:
    processes = Processes()
    spare = processes.spare()
    spare.prepare()
    await started(spare)
    await spare.close()
    assert processes.ended == [1]
    processes.may_start.clear()
    spare.prepare()
    await asyncio.sleep(0)
    await spare.close()
    processes.may_start.set()
    assert spare.process is None
    assert await spare.take() == 2
