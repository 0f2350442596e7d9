"""A client of another making, the pure-Python `h2`, talks at random with a native transport: it checks the server's frames.

`h2` raises on whatever the server may not do: frames on closed streams, data over a window, headers that are malformed.
"""

import random
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from h2.exceptions import StreamClosedError
from h2.settings import SettingCodes

from bench.fuzz.frames import asks, prefixed

TIMEOUT_S: Final = 10.0
SIZES: Final = (0, 1, 4, 100, 5_000, 70_000)


@dataclass(slots=True)
class Call:
    """A call that is on its way.

    Attributes:
        unsent: what its caller has still to send.
        unread: what came and the caller has given no room back for.
    """

    messages: list[bytes]
    unsent: bytes
    body: bytes = b""
    status: str | None = None
    unread: int = 0
    is_cancelled: bool = False
    is_over: bool = False
    has_sent_all: bool = False
    headers: dict[str, str] = field(default_factory=dict)


class Talk:
    """A connection on which a client does what it likes, within the rules."""

    def __init__(self, opened: socket.socket, seed: int) -> None:
        self._socket = opened
        self._dice = random.Random(seed)
        self._client = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._client.initiate_connection()
        self.calls: dict[int, Call] = {}
        self._flush()

    def play(self, steps: int) -> None:
        """Random steps, then whatever is left to end every call."""
        actions = (self._open, self._send, self._send, self._send, self._read_room, self._cancel, self._set, self._ping)
        for _ in range(steps):
            self._dice.choice(actions)()
            self._flush()
            self._receive(wait=False)
        self._client.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1 << 20})
        while running := [stream for stream, call in self.calls.items() if not call.is_over]:
            for stream in running:
                self._send_of(stream, 1 << 20)
                self._give_room(stream)
            self._flush()
            if any(not self.calls[stream].is_over for stream in running):
                self._receive(wait=True)

    def _running(self) -> list[int]:
        return [stream for stream, call in self.calls.items() if not call.is_over]

    def _open(self) -> None:
        if len(self._running()) < 20:
            stream = self._client.get_next_available_stream_id()
            method = self._dice.choice(("Echo", "EchoAll", "Later", "Threaded"))
            count = 1 if method != "EchoAll" else self._dice.randrange(5)
            messages = [self._dice.randbytes(self._dice.choice(SIZES)) for _ in range(count)]
            self._client.send_headers(stream, [*asks(method), ("x-one", "1" * self._dice.randrange(200))])
            self.calls[stream] = Call(messages, b"".join(map(prefixed, messages)))

    def _send(self) -> None:
        if running := self._running():
            self._send_of(self._dice.choice(running), self._dice.choice((1, 3, 5, 1000, 20_000)))

    def _send_of(self, stream: int, most: int) -> None:
        call = self.calls[stream]
        if call.has_sent_all or call.is_over:
            return
        room = self._client.local_flow_control_window(stream)
        while True:
            padding = self._dice.choice((None, None, 0, 7, 200))
            size = min(len(call.unsent), most, self._client.max_outbound_frame_size - 256, room - 256)
            if size <= 0 and call.unsent:
                return
            piece, call.unsent = call.unsent[:size], call.unsent[size:]
            call.has_sent_all = not call.unsent and (most > 1000 or self._dice.random() < 0.5)
            self._client.send_data(stream, piece, end_stream=call.has_sent_all, pad_length=padding)
            most -= size
            room = self._client.local_flow_control_window(stream)
            if most <= 0 or not call.unsent:
                return

    def _read_room(self) -> None:
        if running := self._running():
            self._give_room(self._dice.choice(running))

    def _give_room(self, stream: int) -> None:
        call = self.calls[stream]
        if call.unread and not call.is_over:
            self._client.acknowledge_received_data(call.unread, stream)
            call.unread = 0

    def _cancel(self) -> None:
        running = self._running()
        if running and self._dice.random() < 0.3:
            stream = self._dice.choice(running)
            self._client.reset_stream(stream, 8)
            self.calls[stream].is_cancelled = self.calls[stream].is_over = True
            self._forgive(stream)

    def _set(self) -> None:
        self._client.update_settings(
            {
                SettingCodes.INITIAL_WINDOW_SIZE: self._dice.choice((0, 1, 100, 65_535, 1 << 20)),
                SettingCodes.MAX_FRAME_SIZE: self._dice.choice((1 << 14, 1 << 15, 1 << 20)),
                SettingCodes.HEADER_TABLE_SIZE: self._dice.choice((0, 100, 4096, 1 << 16)),
            }
        )

    def _ping(self) -> None:
        self._client.ping(b"12345678")

    def _flush(self) -> None:
        self._socket.sendall(self._client.data_to_send())

    def _receive(self, *, wait: bool) -> None:
        self._socket.settimeout(TIMEOUT_S if wait else 0.001)
        try:
            data = self._socket.recv(1 << 16)
        except TimeoutError:
            assert not wait, {stream: self.calls[stream] for stream in self._running()}
            return
        assert data, "the server has closed"
        for event in self._client.receive_data(data):
            self._take(event)

    def _take(self, event: Event) -> None:
        if isinstance(event, (ResponseReceived, TrailersReceived)):
            call = self.calls[event.stream_id]
            call.headers |= {str(name): str(value) for name, value in event.headers}
        elif isinstance(event, DataReceived):
            call = self.calls[event.stream_id]
            call.body += event.data
            call.unread += event.flow_controlled_length
        elif isinstance(event, (StreamEnded, StreamReset)):
            call = self.calls[event.stream_id]
            assert not isinstance(event, StreamReset) or event.error_code == 0 or call.is_cancelled, event
            call.is_over = True
            self._forgive(event.stream_id)

    def _forgive(self, stream: int) -> None:
        """Gives the connection's window back for what an ended stream has not read."""
        call = self.calls[stream]
        if call.unread:
            try:
                self._client.acknowledge_received_data(call.unread, stream)
            except StreamClosedError:
                self._client.increment_flow_control_window(call.unread)
            call.unread = 0


@pytest.fixture
def opened(native_address: str) -> Iterator[socket.socket]:
    host, _, port = native_address.rpartition(":")
    with socket.create_connection((host, int(port)), TIMEOUT_S) as found:
        yield found


@pytest.mark.long
@pytest.mark.parametrize("seed", range(30))
def test_a_client_that_does_what_it_likes_is_served(opened: socket.socket, seed: int) -> None:
    talk = Talk(opened, seed)
    talk.play(150)
    whole = [call for call in talk.calls.values() if not call.is_cancelled]
    assert whole
    for call in whole:
        assert call.headers["grpc-status"] == "0"
        assert call.body == b"".join(map(prefixed, call.messages))
