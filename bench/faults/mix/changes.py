"""What changes while the mix runs: new versions in the folder, aliases that move, connections that are cut.

Each runs on a thread of its own, since registries and sockets block, until it is told to stop.
"""

import random
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from bench import memory
from bench.faults.mix.questions import ALIASED, ALIASED_VERSIONS, PROMOTED, PROMOTED_SLOW, Questions, put_promoted
from bench.faults.registry import FaultRegistry
from bench.faults.served import ServerState
from penstock.names import CANARY, CHAMPION, SHADOW

_PROMOTION_S: Final = 2.0
_READY_S: Final = 20.0
_POLL_S: Final = 0.1
_MODELS: Final = (PROMOTED, PROMOTED_SLOW)
_KEPT: Final = 5
"""Versions that stay in the folder."""
_ALIAS_S: Final = 1.2
_CUT_S: Final = 1.5
_CUT_CALLS: Final = 48


def promote(stop: threading.Event, repository: Path, state: ServerState, versions: deque[str]) -> int:
    """Adds version after version of both promoted models; the server unloads the former ones. Returns how many.

    The next one comes when the last one is ready, and only then callers name it: a version may take seconds to be proven.
    """
    number = 1
    while not stop.wait(_PROMOTION_S):
        number += 1
        put_promoted(repository, number)
        give_up_at = time.monotonic() + _READY_S
        while not _is_ready(state, str(number)) and time.monotonic() < give_up_at:
            if stop.wait(_POLL_S):
                return number - 1
        versions.append(str(number))
        for model in _MODELS:
            shutil.rmtree(repository / model / str(number - _KEPT), ignore_errors=True)
    return number - 1


def _is_ready(state: ServerState, version: str) -> bool:
    with suppress(OSError):
        rows = [state.version(model, version) for model in _MODELS]
        return all(row is not None and row["state"] == "READY" for row in rows)
    return False


def move_aliases(stop: threading.Event, registry: FaultRegistry, seed: int) -> int:
    """Moves the champion, the canary and the shadow among the versions. Returns how often."""
    choose, moves = random.Random(seed), 0
    while not stop.wait(_ALIAS_S):
        alias = choose.choice((CHAMPION, CHAMPION, CANARY, SHADOW))
        registry.set_alias(ALIASED, alias, str(choose.randint(1, ALIASED_VERSIONS)))
        moves += 1
    return moves


def cut_connections(stop: threading.Event, address: str, seed: int) -> int:
    """Sends calls and closes their connection at once. Returns how many calls."""
    questions, calls = Questions(seed), 0
    models = (PROMOTED, "heavy", ALIASED)
    while not stop.wait(_CUT_S):
        messages = tuple(questions.of(model, 3).request.SerializeToString() for model in models)
        memory.cut_off(address, messages, _CUT_CALLS)
        calls += _CUT_CALLS
    return calls


class Threads:
    """Runs changes until it is left, and gives what each returned; an error of one is raised on leaving."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []
        self.counts: dict[str, int] = {}

    def start(self, name: str, change: Callable[[threading.Event], int]) -> None:
        """Starts a change, which ends soon after its event is set."""
        self._threads.append(threading.Thread(target=self._run, args=(name, change), daemon=True))
        self._threads[-1].start()

    def stop(self) -> None:
        """Ends them all.

        Raises:
            Exception: what one of them raised.
        """
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _run(self, name: str, change: Callable[[threading.Event], int]) -> None:
        try:
            self.counts[name] = change(self._stop)
        except BaseException as error:  # noqa: BLE001 - raised by `stop`, on the thread that can do something about it
            self._errors.append(error)
