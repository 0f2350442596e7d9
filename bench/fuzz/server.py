"""A native transport in this process whose callers have no sockets: conversations are fed to its kernels as fast as they go.

The fuzzer plays the reactor: it takes events up and answers as the transport's own loop does, and after each conversation
checks that every table is as it was. All randomness comes from outside, so that a case can be played again.
"""

import ctypes
import threading
from collections.abc import Sequence
from random import Random
from typing import Any, Final

from bench.fuzz.broken import BrokenError
from bench.fuzz.frames import PREFACE, call, prefixed, settings, window
from bench.fuzz.plain import Plain
from penstock_server.call import Call
from penstock_server.errors import InvalidInputError
from penstock_server.kernels import compiled
from penstock_server.transport import layout
from penstock_server.transport.choose import native_transport
from penstock_server.transport.interface import Methods, Scheduler, StreamReceiver
from penstock_server.transport.kernel_set import KERNELS
from penstock_server.transport.settings import TransportSettings

MAX_MESSAGE_BYTES: Final = 1 << 16
"""Small, so that cases reach it."""
_KEPT: Final = {
    "streams": layout.OPEN_STREAMS,
    "connections": layout.OPEN_CONNECTIONS,
    "free rows of streams": layout.FREE_STREAM_COUNT,
    "free rows of connections": layout.FREE_CONNECTION_COUNT,
    "bytes held": layout.PARTIAL_BYTES,
    "reads of TLS": layout.TLS_READS,
    "events": layout.EVENT_COUNT,
}


class Service:
    """Methods of all kinds; those that hold a call answer it when the fuzzer says so."""

    def __init__(self) -> None:
        self.held: list[Call] = []
        self.methods = Methods(
            {
                "/t.T/Echo": lambda message, call: call.finish(message),
                "/t.T/Infer": lambda message, call: call.finish(message[::-1]),
                "/t.T/Hold": self._hold,
                "/t.T/Fail": self._fail,
                "/t.T/Tell": self._tell,
            },
            {"/t.T/EchoAll": self._echo_all, "/t.T/FailAll": self._fail_all, "/t.T/Many": self._many},
        )

    def _hold(self, _message: bytes, call: Call) -> None:
        call.metadata()
        self.held.append(call)

    def _fail(self, message: bytes, _call: Call) -> None:
        raise InvalidInputError(f"expected less than {len(message)} bytes")

    def _tell(self, message: bytes, call: Call) -> None:
        call.headers = (("x-header", "h"), ("x-bytes-bin", message[:10]))
        call.trailers = call.metadata()[:3]
        call.finish(message)

    def _echo_all(self, call: Call) -> StreamReceiver:
        return lambda message: call.finish() if message is None else call.send(message)

    def _fail_all(self, call: Call) -> StreamReceiver:
        def receive(_message: bytes | None) -> None:
            call.send(b"one")
            raise InvalidInputError("this message fails")

        return receive

    def _many(self, call: Call) -> StreamReceiver:
        def receive(_message: bytes | None) -> None:
            for at in range(20):
                call.send(bytes(at * 97))
            call.finish()

        return receive


def opened(methods: Methods, scheduler: Scheduler, settings_: TransportSettings) -> Any:
    """A native transport, whose kernels are compiled first if need be."""
    compiled.library(KERNELS)
    return native_transport(methods, scheduler, settings_)


class _Idle:
    is_due = False

    def step(self) -> float:
        return 0.0


class Server:
    """The transport, and one caller who is well served from the first case to the last."""

    def __init__(self) -> None:
        self.service = Service()
        settings_ = TransportSettings(max_message_bytes=MAX_MESSAGE_BYTES)
        transport = opened(self.service.methods, _Idle(), settings_)
        self._transport = transport
        transport.listen_anywhere()  # nobody comes there; the kernels count connections in the port's table
        transport.thread = threading.get_ident()
        self.plain = Plain(transport)
        self._tables = transport._tables
        self._kernels = transport._kernels.brief
        self._address: int = transport._address
        self._cells = transport._state.data
        self._handled = 0
        self._stream = -1
        self._other = self._kernels["adopt"](self._address)
        self._feed(self._other, PREFACE + settings() + window(0, 1 << 30))
        self._turn()
        self._said(self._other)
        self.check_other()
        self._before = self._kept()

    def close(self) -> None:
        while self._handled:
            self._turn()
        self._transport.drain(0)
        self._transport.run()

    def play(self, pieces: Sequence[bytes], random: Random) -> None:
        """Plays one conversation to its end.

        Raises:
            BrokenError: something is not as it was before; says what.
        """
        number = self._kernels["adopt"](self._address)
        reads_answers = random.getrandbits(2) != 0
        for piece in pieces:
            self._feed(number, piece)
            self._turn()
            if reads_answers:
                self._said(number)
            if random.getrandbits(2) == 0:
                self._answer_held()
            if random.getrandbits(1):
                self.plain.run(random)
            if not self._is_open(number):
                break
        if random.getrandbits(3) == 0:
            self._kernels["look_after"](self._address)
            self._turn()
        if random.getrandbits(1):
            self._answer_held()
            self._turn()
        self._feed(number, None)
        self._turn()
        self._turn()
        self.plain.finish(random)
        self.service.held.clear()
        if self._transport._calls:
            raise BrokenError(f"calls are left: {list(self._transport._calls)}")
        kept = self._kept()
        if kept != self._before:
            raise BrokenError(f"expected {self._before}, found {kept}, of {', '.join(_KEPT)}")

    def check_other(self) -> None:
        """Has the other caller make a call.

        Raises:
            BrokenError: it is not answered.
        """
        self._stream += 2
        self._feed(self._other, call(self._stream, b"undisturbed") + window(0, 100))
        self._turn()
        self._turn()
        if prefixed(b"undisturbed") not in self._said(self._other):
            raise BrokenError("another caller is not answered")
        self._turn()

    def check_tables(self) -> None:
        """Looks through the lists of free rows.

        Raises:
            BrokenError: one holds a row twice, or one that is not free.
        """
        for title, at, count_at, end in (
            ("stream", layout.FREE_STREAMS, layout.FREE_STREAM_COUNT, layout.MAX_STREAMS),
            ("connection", layout.FREE_CONNECTIONS, layout.FREE_CONNECTION_COUNT, len(self._tables.connections)),
        ):
            count = self._cells[count_at // 8]
            free = set((ctypes.c_int64 * count).from_address(self._cells[at // 8]))
            if len(free) != count or not free <= set(range(end)):
                raise BrokenError(f"the list of free {title}s is damaged")
        flags = self._tables.connections[:, layout.C_FLAGS // 8]
        if (flags & layout.IS_OPEN).sum() != 1:
            raise BrokenError("a connection is open that nobody has")

    def _kept(self) -> list[int]:
        return [self._cells[at // 8] for at in _KEPT.values()]

    def _feed(self, number: int, data: bytes | None) -> None:
        size = -1 if data is None else len(data)
        self._kernels["decrypted"](self._address, number, data or b"", size)

    def _turn(self) -> None:
        """What the transport's loop does once."""
        transport = self._transport
        count = self._kernels["turn"](self._address, self._handled, 0)
        if count:
            transport._sift(self._tables.events, count)
        self._handled = count
        if transport._operations:
            transport._flush()

    def _is_open(self, number: int) -> bool:
        return bool(self._tables.connections[number, layout.C_FLAGS // 8] & layout.IS_OPEN)

    def _said(self, number: int) -> bytes:
        """Takes what waits to be encrypted."""
        row = self._tables.connections[number]
        at, size = int(row[layout.C_UNSENT_AT // 8]), int(row[layout.C_UNSENT_SIZE // 8])
        if at >= size or not self._is_open(number):
            return b""
        said = ctypes.string_at(int(row[layout.C_UNSENT // 8]) + at, size - at)
        self._kernels["encrypted"](self._address, number, size - at)
        return said

    def _answer_held(self) -> None:
        for held in self.service.held:
            held.finish(b"later")
        self.service.held.clear()
