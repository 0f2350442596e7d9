"""A server that a test plays: it decides about every byte of every connection."""

import socket
import struct
import threading

import hpack

from penstock_client.http2 import frames
from penstock_client.http2.frames import frame, header_block

BEGUN = [(":status", "200"), ("content-type", "application/grpc")]
ENDED = [("grpc-status", "0")]
HEADERS = header_block(BEGUN)
OK = header_block(ENDED)
WAIT_S = 10.0


def answer(stream, payload, headers=HEADERS, trailers=OK):
    return (
        frame(frames.HEADERS, frames.END_HEADERS, stream, headers)
        + frame(frames.DATA, 0, stream, b"\0" + len(payload).to_bytes(4, "big") + payload)
        + frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream, trailers)
    )


class TableAnswers:
    """Answers of a server that remembers its headers, and refers to what it remembers.

    Args:
        ack_after: how many answers it gives before it has read this side's settings, and keeps no table any more.

    Attributes:
        references: how many header blocks referred to the table.
    """

    def __init__(self, ack_after=None):
        self._encoder = hpack.Encoder()
        self._left = ack_after
        self.references = 0

    def answer(self, stream, payload):
        settled = b""
        if self._left == 0:
            self._encoder.header_table_size = 0
            settled = frame(frames.SETTINGS, frames.ACK, 0)
        if self._left is not None:
            self._left -= 1
        headers = self._encoder.encode([*BEGUN, ("server", "tabled")], huffman=False)
        trailers = self._encoder.encode([*ENDED, ("x-answer", payload.decode())], huffman=False)
        # A reference to the table is a byte, and no other one here is as large.
        self.references += sum(any(byte >= 0xBE for byte in block) for block in (headers, trailers))
        return settled + answer(stream, payload, headers, trailers)


def goaway(last):
    return frame(frames.GOAWAY, 0, 0, struct.pack(">II", last, 0))


class Played:
    """A server whose every connection is played by a function of its number, its socket, and its requests' streams."""

    def __init__(self, play, listener=None):
        self._play = play
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self._listener.listen()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._threads = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    def _accept(self):
        while True:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(target=self._serve, args=(self.connections, connected))
            thread.start()
            self._threads.append(thread)

    def _serve(self, number, connected):
        with connected:
            try:
                connected.sendall(frames.settings({}))
                self._play(number, connected, requests(connected))
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in (self._acceptor, *self._threads):
            thread.join(WAIT_S)
            assert not thread.is_alive()


def received(connected):
    """The frames that a client sends: kind, flags, stream, payload."""
    buffer = b""
    while data := connected.recv(65_536):
        buffer += data
        buffer = buffer.removeprefix(frames.PREFACE)
        while len(buffer) >= 9:
            high, low, kind, flags, stream = frames.HEADER.unpack_from(buffer)
            end = 9 + (high << 8 | low)
            if len(buffer) < end:
                break
            yield kind, flags, stream, buffer[9:end]
            buffer = buffer[end:]


def requests(connected):
    """The streams of whole requests."""
    return (stream for kind, flags, stream, _ in received(connected) if kind == 0 and flags & frames.END_STREAM)
