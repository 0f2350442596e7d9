"""How often each routing key has failed while canaries share a model's requests: what the router draws once must count once.

The router draws a key for a version, and with it all of its requests. So a client whose requests fail over and over is one
draw, however often it comes again, and tests of errors count the first failure of each key (`rollout.gates`). All workers of a
server share a table of counts per model, in a file beside their counters, since any of them may get a key's requests. Only
failures look at it.

A table has no keys, only a byte for each of `SLOTS` values of their hash, so its size is fixed. A key whose slot another one
has taken is not the first there: while n keys have failed, the first failures of a share of n / `SLOTS` of all further keys are
missed. Slots do not depend on where the router sends a key, so those are missed of all versions alike, and tests lose power,
not their promise. Two workers that count failures of one slot within the same microsecond may both take theirs for the first.

Counts begin at nothing when other versions share the requests, and when the server starts again; servers know nothing of each
other's. A key may count again after a restart, and once on each server that its requests reach.
"""

import fcntl
import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Final

import structlog

log = structlog.get_logger(__name__)

SLOTS: Final = 1 << 20
MOST: Final = 255
"""A slot counts no further."""
_HEAD: Final = struct.Struct("<q")
"""Before the slots stands which versions share the requests, as a number, so that one worker of all empties them."""
_NONE: Final = 0
TABLE_BYTES: Final = _HEAD.size + SLOTS
_PREFIX: Final = "failed-keys-"


class FailedKeys:
    """The table of one model; on the reactor's thread.

    Args:
        memory: `TABLE_BYTES`, which all workers share.
        window: which versions share the requests.

    Attributes:
        window: the same.
    """

    def __init__(self, memory: mmap.mmap, window: int) -> None:
        self.window = window
        self._memory = memory

    def count(self, key: str) -> int:
        """Counts a failure of a routing key; how many it has had with this one, `MOST` for as many or more."""
        memory, at = self._memory, _HEAD.size + slot_of(key)
        count = memory[at] + 1
        if count > MOST:
            return MOST
        memory[at] = count
        return count

    def close(self) -> None:
        """Has the next that opens it begin at nothing."""
        _HEAD.pack_into(self._memory, 0, _NONE)


def slot_of(key: str) -> int:
    """The slot of a key, which says nothing of its place among the router's."""
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, person=b"failed").digest()
    return int.from_bytes(digest, "little") % SLOTS


class FailureTables:
    """The tables of a worker's models; on the thread that puts plans in force.

    Args:
        folder: where all workers of a server find them.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, FailedKeys] = {}

    def of(self, model: str, versions: Sequence[str]) -> FailedKeys | None:
        """A model's table while these versions share its requests; None for fewer than two, which say nothing."""
        held, window = self._open.get(model), _window(versions)
        if held is not None and held.window == window:
            return held
        if len(versions) > 1:
            self._open[model] = FailedKeys(self._opened(model, window), window)
        elif held is not None:
            self._open.pop(model).close()
        return self._open.get(model)

    @property
    def tables(self) -> dict[str, FailedKeys]:
        """The tables of the models whose requests are shared now."""
        return dict(self._open)

    def keep(self, models: Iterable[str]) -> None:
        """Closes the tables of all other models."""
        for model in self._open.keys() - set(models):
            self._open.pop(model).close()

    def _opened(self, model: str, window: int) -> mmap.mmap:
        """A model's memory, empty unless another worker has opened it for the same versions."""
        name = blake2b(model.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        descriptor = -1
        try:
            descriptor = os.open(self._folder / f"{_PREFIX}{name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Not only truncated: in a full file system the first write to the mapping would end the process (SIGBUS).
            os.posix_fallocate(descriptor, 0, TABLE_BYTES)
            memory = mmap.mmap(descriptor, TABLE_BYTES)
            if _HEAD.unpack_from(memory)[0] != window:
                memory[_HEAD.size :] = bytes(SLOTS)
                _HEAD.pack_into(memory, 0, window)
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # which the mapping's own descriptor would hold
        except OSError as error:
            log.warning("failures are counted by key in each worker alone", model=model, reason=str(error))
            memory = mmap.mmap(-1, TABLE_BYTES)
        finally:
            with suppress(OSError):
                os.close(descriptor)
        return memory


def _window(versions: Sequence[str]) -> int:
    digest = blake2b("\0".join(sorted(versions)).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    (number,) = _HEAD.unpack(digest)
    return number or 1
