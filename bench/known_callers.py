"""What it costs the kernels of plain requests to know a caller: a turn's calls, sifted with callers and without.

The calls are those of a lane that takes none, so that each sift does the same: all but the waiting.
"""

import struct
import time
from typing import Any, Final

import numpy as np

from bench.protocols import GRPC
from penstock_server.errors import PenstockError
from penstock_server.kernels import compiled
from penstock_server.plain import layout
from penstock_server.plain.kernel_set import KERNELS
from penstock_server.plain.lane import Form
from penstock_server.plain.requests import PlainRequests, RawColumn
from penstock_server.transport import layout as wire

_CALLS: Final = 512
_CONNECTIONS: Final = 8
_TIMES: Final = 300
_OTHERS: Final = 200
_HEADERS: Final = (
    (b"te", b"trailers"),
    (b"grpc-accept-encoding", b"identity,deflate,gzip"),
    (b"user-agent", b"grpc-python/1.80.0 grpc-c/50.0.0 (linux; chttp2)"),
)


class _Nobody:
    """A transport without calls."""

    def send_replies(self, operations: int, count: int, block: int, *, is_shared: bool = False) -> None:
        """Sends nothing."""

    def ending(self, error: PenstockError) -> bytes:
        return str(error).encode()


class _Turn:
    """Calls that come together, each with its headers."""

    def __init__(self, value: bytes, *, asks: bool) -> None:
        message = GRPC.messages("tabular", rows=1, copies=1)[0]
        self._requests = PlainRequests(compiled.library(KERNELS), 0, _Nobody())
        lane = self._requests.open_lane([120], lambda: None)
        self._requests.learn(message, [RawColumn(layout.ROWS, 0, 0, 120)], lane, _no_form(), model="m")
        headers = b"".join(_pair(*each) for each in (*_HEADERS, (b"authorization", value)))
        self._kept: list[Any] = []
        streams = np.zeros((_CALLS, wire.STREAM_BYTES // 8), np.int64)
        connections = np.zeros((_CONNECTIONS, wire.CONNECTION_BYTES // 8), np.int64)
        self._events = np.zeros((_CALLS, wire.EVENT_BYTES // 8), np.int64)
        for slot in range(_CALLS):
            streams[slot, wire.S_CONNECTION // 8] = connections[slot % _CONNECTIONS].ctypes.data
            streams[slot, wire.S_HEADERS // 8] = self._address(headers)
            streams[slot, wire.S_HEADERS_SIZE // 8] = len(headers)
            self._events[slot] = wire.CALL, slot, self._address(message), len(message), 0, wire.NEVER, 0, 0
        self._kept += [streams, connections]
        if asks:
            callers = self._requests.ask_callers(streams.ctypes.data)
            plan = self._requests.plan_of(message)
            for shown in (value, *(b"Bearer %d" % number for number in range(_OTHERS))):
                callers.permit(shown, plan, now_ns=0, until_ns=layout.NEVER, bucket=None)

    def _address(self, content: bytes) -> int:
        block = np.frombuffer(content, np.uint8).copy()
        self._kept.append(block)
        return int(block.ctypes.data)

    def ns(self) -> float:
        """Nanoseconds per call, the least of many times."""
        best = float("inf")
        for _ in range(_TIMES):
            began = time.perf_counter_ns()
            left = self._requests.sift(self._events.ctypes.data, _CALLS, 1000)
            best = min(best, (time.perf_counter_ns() - began) / _CALLS)
            assert left == _CALLS
        return best


def _pair(name: bytes, value: bytes) -> bytes:
    return struct.pack("<II", len(name), len(value)) + name + value


def _no_form() -> Form:
    return Form(None, None)  # type: ignore[arg-type]  # nothing is answered


def cost_ns(value: bytes) -> tuple[float, float]:
    """Nanoseconds per call whose `authorization` has this value, when nobody is asked, and when callers are known."""
    off, on = _Turn(value, asks=False), _Turn(value, asks=True)
    rounds = [(off.ns(), on.ns()) for _ in range(3)]
    return min(without for without, _ in rounds), min(with_callers for _, with_callers in rounds)
