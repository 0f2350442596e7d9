"""SIGTERM under load, again and again: a call that the server has taken is answered, or ends UNAVAILABLE."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Final

import grpc.aio

from bench.faults import graphs
from bench.faults.mix import callers
from bench.faults.mix.questions import Questions
from bench.faults.number import Number
from bench.faults.scenario import Run
from bench.faults.served import serving
from penstock import inference_pb2 as pb

_LOAD_S: Final = 0.7
_CHANNELS: Final = 4
_UNARY: Final = 28
_STREAMS: Final = 4
_STREAMED: Final = 20
_DEADLINE_S: Final = 10.0
_ENDS_S: Final = 45.0
_ALLOWED: Final = frozenset({"OK", "UNAVAILABLE"})


def play(run: Run) -> Iterator[Number]:
    """Starts a server, loads it, ends it, and counts how each call ended; then again."""
    times = run.times(full=100, quick=6)
    repository = run.folder / "repository"
    graphs.put(repository, "promoted", 1, graphs.answering(1, side=graphs.INLINE_SIDE))
    graphs.put(repository, "heavy", 1, graphs.failing(1, side=graphs.THREADED_SIDE))
    codes: Counter[str] = Counter()
    wrong, affected, badly = 0, 0, 0
    longest_s = 0.0
    for number in range(times):
        with serving(
            run.folder / "server",
            *("--model-repository", str(repository), "--workers", str(1 + number % 2)),
            models={"promoted", "heavy"},
        ) as (server, _):
            found, faults, took_s = asyncio.run(_load(server.grpc, server.pid, seed=number))
            longest_s = max(longest_s, took_s)
            badly += server.wait(_ENDS_S) != 0
        codes += found
        wrong += faults
        affected += any(code.partition(":")[0] not in _ALLOWED for code in found)
        run.say(f"{number + 1} of {times}: {dict(codes)}")
    run.details += [f"{code:70} {count:9,}" for code, count in codes.most_common()]
    lost = sum(count for code, count in codes.items() if code.partition(":")[0] not in _ALLOWED)
    yield Number("calls lost but UNAVAILABLE", lost, f"in {affected} of {times} SIGTERMs, of {codes.total():,} calls")
    yield Number("wrong answers", wrong)
    yield Number("servers that did not end with 0", badly)
    yield Number("slowest end, s", longest_s)


class _Callers:
    """Calls in flight on a server that is told to end.

    Attributes:
        codes: endings, by code.
        wrong: answers that are not those of their row.
    """

    def __init__(self, seed: int) -> None:
        self.codes: Counter[str] = Counter()
        self.wrong = 0
        self._questions = Questions(seed)

    async def ask(self, method: callers.Unary, model: str) -> None:
        """Asks one row after another until the server has gone."""
        while True:
            question = self._questions.of(model, 1)
            try:
                reply = await method(question.request.SerializeToString(), timeout=_DEADLINE_S)
            except grpc.aio.AioRpcError as error:
                if self._is_gone(error):
                    return
                continue
            self.codes["OK"] += 1
            self.wrong += question.check(pb.ModelInferResponse.FromString(reply)) is not None

    async def stream(self, method: callers.Streaming) -> None:
        """Opens one stream after another until the server has gone."""
        while True:
            call = method(self._messages(), timeout=_DEADLINE_S)
            try:
                async for _ in call:
                    pass
            except grpc.aio.AioRpcError as error:
                if self._is_gone(error):
                    return
                continue
            self.codes[(await call.code()).name] += 1

    async def _messages(self) -> AsyncIterator[bytes]:
        for _ in range(_STREAMED):
            yield self._questions.of("promoted", 1).request.SerializeToString()

    def _is_gone(self, error: grpc.aio.AioRpcError) -> bool:
        code = error.code().name
        self.codes[code if code == "UNAVAILABLE" else f"{code}: {(error.details() or '')[:60]}"] += 1
        return code == "UNAVAILABLE"


async def _load(address: str, pid: int, *, seed: int) -> tuple[Counter[str], int, float]:
    """Endings by code, wrong answers, and the seconds from SIGTERM to the last call's end."""
    asking = _Callers(seed)
    opened = callers.channels(address, _CHANNELS)
    unary, streaming = callers.methods(opened)
    models = ["promoted"] * (_UNARY - 4) + ["heavy"] * 4
    tasks = [asyncio.create_task(asking.ask(unary[at % _CHANNELS], model)) for at, model in enumerate(models)]
    tasks += [asyncio.create_task(asking.stream(streaming[at % _CHANNELS])) for at in range(_STREAMS)]
    await asyncio.sleep(_LOAD_S)
    started = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    ended, left = await asyncio.wait(tasks, timeout=_ENDS_S)
    took_s = time.monotonic() - started
    for task in left:
        task.cancel()
        asking.codes["no end"] += 1
    await asyncio.gather(*left, return_exceptions=True)
    for task in ended:
        task.result()
    for channel in opened:
        await channel.close()
    return asking.codes, asking.wrong, took_s
