"""SIGTERM under load, again and again: a call that the server has taken is answered, or ends UNAVAILABLE."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

import grpc
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

    def _is_gone(self, error: grpc.aio.AioRpcError) -> bool:
        ending = _ending(error)
        self.codes[ending] += 1
        return ending == "UNAVAILABLE"


def _stream(channel: grpc.Channel, seed: int) -> Counter[str]:
    """Opens one stream after another until the server has gone or the channel is closed; how they ended.

    On a thread: grpc.aio tells of "Internal error from Core" where it writes to a stream whose status has come already,
    and loses that status.
    """
    codes: Counter[str] = Counter()
    questions = Questions(seed)
    method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(callers.STREAM)
    while codes["UNAVAILABLE"] == 0:
        messages = [questions.of("promoted", 1).request.SerializeToString() for _ in range(_STREAMED)]
        try:
            for _ in method(iter(messages), timeout=_DEADLINE_S):
                pass
            codes["OK"] += 1
        except grpc.RpcError as error:
            codes[_ending(error)] += 1
        except ValueError:  # of a closed channel
            break
    return codes


def _ending(error: grpc.RpcError) -> str:
    code: str = error.code().name
    return code if code == "UNAVAILABLE" else f"{code}: {(error.details() or '')[:60]}"


async def _load(address: str, pid: int, *, seed: int) -> tuple[Counter[str], int, float]:
    """Endings by code, wrong answers, and the seconds from SIGTERM to the last call's end."""
    asking = _Callers(seed)
    opened = callers.channels(address, _CHANNELS)
    unary, _ = callers.methods(opened)
    models = ["promoted"] * (_UNARY - 4) + ["heavy"] * 4
    tasks: list[asyncio.Task[Counter[str] | None]] = [
        asyncio.create_task(asking.ask(unary[at % _CHANNELS], model)) for at, model in enumerate(models)
    ]
    roads = [grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(_STREAMS)]
    streams = [asyncio.create_task(asyncio.to_thread(_stream, road, seed + at)) for at, road in enumerate(roads)]
    await asyncio.sleep(_LOAD_S)
    started = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    ended, left = await asyncio.wait({*tasks, *streams}, timeout=_ENDS_S)
    took_s = time.monotonic() - started
    for road in roads:
        road.close()  # a thread cannot be cancelled: what its streams wait for ends with their channel
    for task in left.intersection(tasks):
        task.cancel()
    if left:
        asking.codes["no end"] += len(left)
    await asyncio.gather(*left, return_exceptions=True)
    for task in ended | left.intersection(streams):
        asking.codes += task.result() or Counter()
    for channel in opened:
        await channel.close()
    return asking.codes, asking.wrong, took_s
