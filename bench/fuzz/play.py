"""Plays cases in this process, by their numbers, until the time is over or one of them ends it."""

import ctypes
import json
import logging
import mmap
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import structlog

from bench.fuzz import seeds
from bench.fuzz.broken import BrokenError
from bench.fuzz.mutate import mutated
from bench.fuzz.server import Server, Service, opened
from penstock_server.transport import layout
from penstock_server.transport.settings import TransportSettings

_LOOKS: Final = 500
"""So many cases, and another caller makes a call."""
_MEASURES: Final = 20_000
_GROWTH_BYTES: Final = 32 << 20
_TIMEOUT_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Played:
    """What was played: the last case, how many, and the changes in all of them."""

    last: int
    cases: int
    changes: int
    seconds: float


def case(seed: int, number: int, dice: random.Random | None = None) -> tuple[list[bytes], random.Random, int]:
    """The pieces of a case, what it rolls the dice with afterwards, and how many changes it has."""
    dice = dice or random.Random()
    dice.seed(seed << 40 | number)
    pieces, changes = mutated(dice, seeds.CONVERSATIONS)
    return pieces, dice, changes


class _Usage(ctypes.Structure):
    """glibc's mallinfo2."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keep",
        )
    )


def allocated_bytes() -> int:
    """What malloc has given out; 0 where the C library does not say."""
    function = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if function is None:
        return 0
    function.restype = _Usage
    usage = function()
    return int(usage.uordblks + usage.hblkhd)


class InProcess:
    """Cases by the kernels alone."""

    def __init__(self) -> None:
        self._server = Server()
        self._base = 0

    def play(self, pieces: list[bytes], dice: random.Random) -> None:
        self._server.play(pieces, dice)

    def look(self) -> None:
        self._server.check_other()

    def measure(self) -> None:
        self._server.check_tables()
        now = allocated_bytes()
        self._base = self._base or now
        if now > self._base + _GROWTH_BYTES:
            raise BrokenError(f"memory has grown by {(now - self._base) >> 20} MiB")

    def close(self) -> None:
        self._server.close()


class OverSockets:
    """Cases over TCP, against a transport that runs on its own thread."""

    def __init__(self) -> None:
        service = Service()
        self._transport = opened(service.methods, self, TransportSettings())
        self._service = service
        port = self._transport.listen_anywhere()
        self._thread = threading.Thread(target=self._transport.run)
        self._thread.start()
        self._place = ("127.0.0.1", port)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)])
        self._echo = self._channel.unary_unary("/t.T/Echo", request_serializer=bytes, response_deserializer=bytes)
        self.look()
        self._before = self._kept()

    is_due = False

    def step(self) -> float:
        """As a scheduler: answers a call that was held."""
        if self._service.held:
            self._service.held.pop().finish(b"later")
        return 0.01

    def play(self, pieces: list[bytes], dice: random.Random) -> None:
        with socket.create_connection(self._place, _TIMEOUT_S) as caller:
            try:
                for piece in pieces:
                    caller.sendall(piece)
                if dice.getrandbits(1):
                    caller.settimeout(0.001)
                    caller.recv(1 << 16)
                if dice.getrandbits(1):
                    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass  # the server has closed it, or has nothing to say

    def look(self) -> None:
        if self._echo(b"undisturbed", timeout=_TIMEOUT_S) != b"undisturbed":
            raise BrokenError("another caller is not answered")

    def measure(self) -> None:
        end_s = time.monotonic() + _TIMEOUT_S
        while (kept := self._kept()) != self._before:
            if time.monotonic() > end_s:
                raise BrokenError(f"expected {self._before}, found {kept}")
            time.sleep(0.01)

    def close(self) -> None:
        self.measure()
        self._channel.close()
        self._transport.drain(0)
        self._thread.join(_TIMEOUT_S)
        if self._thread.is_alive():
            raise BrokenError("the transport does not end")

    def _kept(self) -> list[int]:
        state = self._transport._state
        return [
            int(state[at // 8])
            for at in (layout.OPEN_STREAMS, layout.OPEN_CONNECTIONS, layout.FREE_STREAM_COUNT, layout.PARTIAL_BYTES)
        ]


_PARTS: Final[dict[str, Callable[[], InProcess | OverSockets]]] = {"in process": InProcess, "over sockets": OverSockets}


def main(plan: dict[str, Any], progress: mmap.mmap) -> None:
    """Plays the cases of a plan."""
    logging.getLogger().setLevel(logging.CRITICAL)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    place = _PARTS[plan["part"]]()
    end_s = time.monotonic() + plan["seconds"]
    dice = random.Random()
    changes, number = 0, plan["first"]
    while number < plan["count"]:
        struct.pack_into("<qq", progress, 0, number, changes)
        pieces, dice, count = case(plan["seed"], number, dice)
        changes += count
        place.play(pieces, dice)
        number += 1
        if number % _LOOKS == 0:
            place.look()
            if time.monotonic() > end_s:
                break
        if number % _MEASURES == 0:
            place.measure()
    struct.pack_into("<qq", progress, 0, number - 1, changes)
    place.close()


if __name__ == "__main__":
    with Path(sys.argv[2]).open("r+b") as file:
        main(json.loads(sys.argv[1]), mmap.mmap(file.fileno(), 0))
