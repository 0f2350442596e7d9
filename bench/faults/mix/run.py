"""Runs the mix against a server and says what it found.

The server is started by the caller, with `questions.SETTINGS`, the folder of `questions.write` and the registry of
`questions.register`, and has every model of `questions.MODELS` ready.
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from bench.faults.mix import callers
from bench.faults.mix.changes import Threads, cut_connections, move_aliases, promote
from bench.faults.mix.questions import Questions
from bench.faults.mix.tally import Tally
from bench.faults.registry import FaultRegistry
from bench.faults.served import ServerState, happens

WAITING: Final = ("penstock_queue_rows", "penstock_queue_requests")
_LOOK_S: Final = 1.0
_SETTLES_S: Final = 15.0
_CHANNELS: Final = 6
_WARM_SHARE: Final = 0.3
_PROGRESS_S: Final = 10.0


@dataclass(slots=True)
class Seen:
    """What was seen of the server while the mix ran, once a second.

    Attributes:
        least_waiting: the lowest value of any queue gauge, which is never below 0.
        tree_bytes: resident memory of the server's processes, by seconds since the start.
        unreachable: how often the HTTP port did not answer.
    """

    least_waiting: float = 0.0
    tree_bytes: list[tuple[float, int]] = field(default_factory=list)
    unreachable: int = 0


@dataclass(frozen=True, slots=True)
class MixResult:
    """What a run of the mix found.

    Attributes:
        lasted_s: how long callers began calls.
        waiting: the queue gauges that are not 0 after the last call, by labels; empty when all is well.
        unloading: versions that are still being unloaded then.
        restarts: workers that died.
        early_bytes, late_bytes: resident memory of the server's processes after the first third, and at the end.
        changes: how many promotions, moved aliases and cut calls there were.
    """

    tally: Tally
    seen: Seen
    lasted_s: float
    waiting: dict[str, float]
    unloading: tuple[str, ...]
    restarts: int
    early_bytes: int
    late_bytes: int
    changes: dict[str, int]

    @property
    def growth(self) -> float:
        """Memory at the end against that after the first third."""
        return self.late_bytes / self.early_bytes

    def faults(self, *, max_growth: float) -> list[str]:
        """One sentence per kind of fault; none when all is well."""
        tally = self.tally
        counted = {
            "wrong answers": tally.wrong,
            "calls without an end": tally.endless,
            "requests of a stream without an answer": tally.lost,
            "answers after their deadline": tally.late,
            "unexpected endings": sum(tally.unexpected.values()),
            "restarts of workers": self.restarts,
        }
        sentences = [f"{count} {what}" for what, count in counted.items() if count]
        if self.waiting:
            sentences.append(f"queues that are not empty: {self.waiting}")
        if self.seen.least_waiting < 0:
            sentences.append(f"a queue gauge of {self.seen.least_waiting:g}")
        if self.unloading:
            sentences.append(f"still unloading: {', '.join(self.unloading)}")
        if self.growth > max_growth:
            sentences.append(f"memory grew {self.growth:.2f} times, expected at most {max_growth:g}")
        return sentences + (tally.examples if sentences else [])

    def lines(self) -> list[str]:
        """The run as a table for people."""
        tally = self.tally
        changes = ", ".join(f"{count} {what}" for what, count in self.changes.items())
        lines = [
            f"{tally.calls:,} calls of {tally.requests:,} requests in {self.lasted_s:.0f} s: {tally.answers:,} answers",
            f"{tally.wrong} wrong, {tally.endless} without an end, {tally.lost} lost in streams, {tally.late} late",
            f"meanwhile: {changes}",
            f"afterwards: queues {self.waiting or 'empty'}, unloading {', '.join(self.unloading) or 'none'}",
            f"least gauge {self.seen.least_waiting:g}, {self.restarts} restarts, HTTP unreachable {self.seen.unreachable}",
            f"RSS {self.early_bytes / 1e6:.0f} -> {self.late_bytes / 1e6:.0f} MB",
            f"  {'caller':22} {'ending':20} {'count':>9}",
        ]
        for (caller, code), number in sorted(tally.codes.items()):
            is_unexpected = tally.unexpected[caller, code]
            lines.append(
                f"  {caller:22} {code:20} {number:9,}{f'  {is_unexpected:,} unexpected' * bool(is_unexpected)}"
            )
        return lines + [f"  {sentence}" for sentence in tally.examples]


async def run(
    address: str,
    state: ServerState,
    *,
    repository: Path,
    registry: FaultRegistry,
    duration_s: float,
    asking: int = 48,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> MixResult:
    """Sends the mix for a time, waits until all is quiet, and looks at what is left.

    Args:
        address: of gRPC.
        state: of the server.
        repository: its folder of models, which gets new versions.
        registry: what it follows; its aliases are moved.
        duration_s: how long callers begin calls.
        asking: how many callers ask singly; streams come in addition.
        seed: of all that is drawn.
        say: called with progress.
    """
    opened = callers.channels(address, _CHANNELS)
    unary, streaming = callers.methods(opened)
    tally, seen, threads = Tally(), Seen(), Threads()
    started = time.monotonic()
    mix = callers.Mix(
        unary, streaming, Questions(seed), tally, ends_at=started + duration_s, random=random.Random(seed + 1)
    )
    threads.start("promotions", lambda stop: promote(stop, repository, state, mix.versions))
    threads.start("moved aliases", lambda stop: move_aliases(stop, registry, seed))
    threads.start("cut calls", lambda stop: cut_connections(stop, address, seed))
    threads.start("looks", lambda stop: _look(stop, state, seen, started))
    try:
        tasks = callers.start(mix, asking=asking)
        progress = asyncio.create_task(_progress(mix, started, say))
        try:
            await asyncio.gather(*tasks)
        finally:
            progress.cancel()
    finally:
        lasted_s = time.monotonic() - started
        await asyncio.to_thread(threads.stop)
        for channel in opened:
            await channel.close()
    await asyncio.to_thread(happens, lambda: not _waiting(state) and not _unloading(state), within_s=_SETTLES_S)
    early_s = _WARM_SHARE * duration_s
    warm = [size for at_s, size in seen.tree_bytes if at_s <= early_s]
    late = state.tree_bytes()
    return MixResult(
        tally=tally,
        seen=seen,
        lasted_s=lasted_s,
        waiting=_waiting(state),
        unloading=_unloading(state),
        restarts=state.restarts(),
        early_bytes=int(median(warm[-3:])) if warm else late,
        late_bytes=late,
        changes=threads.counts,
    )


async def _progress(mix: callers.Mix, started: float, say: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(_PROGRESS_S)
        tally = mix.tally
        say(
            f"{time.monotonic() - started:.0f} s: {tally.calls:,} calls, {tally.answers:,} answers, {tally.wrong} wrong, "
            f"{tally.endless} without an end, {sum(tally.unexpected.values())} unexpected endings"
        )


def _look(stop: threading.Event, state: ServerState, seen: Seen, started: float) -> int:
    looks = 0
    while not stop.wait(_LOOK_S):
        looks += 1
        try:
            seen.least_waiting = min(seen.least_waiting, *state.samples(*WAITING).values(), 0.0)
        except OSError:
            seen.unreachable += 1
        seen.tree_bytes.append((time.monotonic() - started, state.tree_bytes()))
    return looks


def _waiting(state: ServerState) -> dict[str, float]:
    return {
        f"{name}{{{', '.join(value for _, value in labels)}}}": value
        for (name, labels), value in state.samples(*WAITING).items()
        if value
    }


def _unloading(state: ServerState) -> tuple[str, ...]:
    rows = state.models()
    return tuple(sorted({f"{row['name']} {row['version']}" for row in rows if row["state"] == "UNLOADING"}))
