"""What surrounds a simulation: its loop is the event loop, its log is the trace, and its wall clock and leases are its own."""

import asyncio
import gc
import random
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Coroutine, Iterator, MutableMapping
from contextlib import contextmanager
from itertools import count
from random import Random
from typing import Any, Final
from unittest.mock import patch

import structlog

from penstock_server import leases
from penstock_server.errors import PenstockError
from penstock_server.metrics import store
from tests.simulation.world import HeldLease, World

_EXPECTED: Final = {"a worker's event cannot be handled; replacing the worker"}


@contextmanager
def surroundings(seed: str, *, keep_lines: int | None, echo: Callable[[str], None] | None) -> Iterator[World]:
    """A world of this seed, which ends with the block; to be used within `hushed`."""
    random.seed(seed)  # requests without a key are dealt by the module's own numbers
    world = World(seed, keep_lines=keep_lines, echo=echo)
    asyncio.set_event_loop(world.loop)
    with _log_to(world), _held_leases(), _wall_clock(world), _own_files(world):
        try:
            yield world
        finally:
            world.loop.close()
            asyncio.set_event_loop(None)
            world.close()


def run(world: World, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Runs it in the world; what it raises is a violation."""
    try:
        world.loop.run_until_complete(work())
    except Exception as error:  # noqa: BLE001 - it is what was looked for
        world.violate(f"the simulation failed: {error!r}")
        world.say(traceback.format_exc())


def _drop(*_: object) -> Any:
    raise structlog.DropEvent


@contextmanager
def _log_to(world: World) -> Iterator[None]:
    """Makes the log of the code under test a part of the trace. What it did not expect is a violation."""

    def write(_logger: object, level: str, event: MutableMapping[str, Any]) -> Any:
        sentence = event.pop("event")
        error = event.pop("exc_info", None)
        world.seen[sentence] += 1
        world.say(f"{level}: {sentence} {_fields(event)}")
        if error:
            kind, value = sys.exc_info()[:2]
            if not (isinstance(value, OSError | PenstockError) or sentence in _EXPECTED):
                world.violate(f"{sentence}: {kind.__name__ if kind else error}: {value}")
        raise structlog.DropEvent

    structlog.configure(processors=[write], cache_logger_on_first_use=False)
    try:
        yield
    finally:
        structlog.configure(processors=[_drop], cache_logger_on_first_use=False)


def _fields(event: MutableMapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in event.items() if name != "took_s")


@contextmanager
def _held_leases() -> Iterator[None]:
    """Has leases known by the process that holds them."""
    former, leases.Lease = leases.Lease, HeldLease  # type: ignore[misc]
    try:
        yield
    finally:
        leases.Lease = former  # type: ignore[misc]


@contextmanager
def _wall_clock(world: World) -> Iterator[None]:
    """Has the wall clock be as wrong as the world says."""
    true_s = time.time
    with (
        patch("time.time", lambda: true_s() + world.wall_ahead_s),
        patch("time.time_ns", lambda: int((true_s() + world.wall_ahead_s) * 1e9)),
    ):
        yield


@contextmanager
def _own_files(world: World) -> Iterator[None]:
    """Has counters be in the world's folder, and temporary files have names that the seed decides."""
    memory = world.folder / "memory"
    memory.mkdir()
    names = Random(f"{world.seed} names")
    drawn = (f"{names.getrandbits(48):012x}" for _ in count())
    with patch.object(store, "_MEMORY", memory), patch.object(tempfile, "_name_sequence", drawn):
        yield


@contextmanager
def hushed() -> Iterator[None]:
    """Has Python and the log say nothing of what ends after a world: all of it has ended with the block."""
    log = structlog.get_config()
    structlog.configure(processors=[_drop], cache_logger_on_first_use=False)
    former, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            yield
            # Processes that were killed in the simulation end in Python here, in an order that means nothing.
            gc.collect()
    finally:
        structlog.configure(**log)
        sys.unraisablehook = former
