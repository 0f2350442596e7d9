"""TLS for the native transport: OpenSSL through Python's `ssl`, between the sockets and nghttp2.

The kernels say that a connection has something to read or to send; what is encrypted goes through here, everything else
is theirs. A connection that does not choose HTTP/2 by ALPN is closed, as gRPC asks.
"""

import ctypes
import os
import ssl
from typing import Any, Final

from penstock_server.transport import layout
from penstock_server.transport.certificate import names_of_certificate
from penstock_server.transport.settings import TransportSettings
from penstock_server.transport.tls_files import TlsContext

CHUNK_BYTES: Final = 1 << 16
READ_BYTES: Final = CHUNK_BYTES - (1 << 14) - 512
"""With the rest of a record from before it makes no more than `CHUNK_BYTES`, of which the events have room."""
_PROTOCOL: Final = "h2"


class TlsConnections:
    """The connections that speak TLS, by their numbers in the table of connections."""

    def __init__(self, settings: TransportSettings, tables: Any, kernels: Any) -> None:
        self._tables = tables
        self._kernels = kernels
        self._connections: dict[int, _TlsConnection] = {}
        files = settings.tls
        self.is_on = files is not None
        self._context = None if files is None else TlsContext(files, _PROTOCOL, requires_certificate=True)

    def take(self, kind: int, number: int, more: int) -> None:
        """Takes an event of a connection up."""
        if kind == layout.TLS_ACCEPTED:
            assert self._context is not None
            context = self._context.current()
            self._connections[number] = _TlsConnection(context, number, more, self._tables, self._kernels)
        elif kind == layout.TLS_CLOSED:
            self._connections.pop(number, None)
        elif (connection := self._connections.get(number)) is not None:
            connection.take(kind)

    def peer(self, number: int) -> tuple[str, ...]:
        """The names of the certificate that the caller of a connection has shown."""
        connection = self._connections.get(number)
        return () if connection is None else connection.peer

    def close(self) -> None:
        self._connections.clear()


class _TlsConnection:
    __slots__ = (
        "_descriptor",
        "_incoming",
        "_is_blocked",
        "_is_ready",
        "_kernels",
        "_number",
        "_object",
        "_outgoing",
        "_serial",
        "_tables",
        "_taken",
        "_unsent",
        "peer",
    )

    def __init__(self, context: ssl.SSLContext, number: int, descriptor: int, tables: Any, kernels: Any) -> None:
        self._number = number
        self._descriptor = descriptor
        self._tables = tables
        self._kernels = kernels
        self._serial = int(tables.connections[number, layout.C_SERIAL // 8])
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._is_ready = False
        self._is_blocked = False
        self._unsent = b""
        self._taken = 0
        self.peer: tuple[str, ...] = ()

    @property
    def _is_open(self) -> bool:
        """Whether the kernels have not closed it yet; then its descriptor may be another file's."""
        row = self._tables.connections[self._number]
        return bool(row[layout.C_FLAGS // 8] & layout.IS_OPEN) and row[layout.C_SERIAL // 8] == self._serial

    def take(self, kind: int) -> None:
        if not self._is_open:
            return
        try:
            if kind == layout.TLS_READABLE:
                self._read()
            if self._is_open:  # what it read may have ended it
                self._send()
        except (ssl.SSLError, OSError):
            self._end()

    def _end(self) -> None:
        self._kernels.brief["decrypted"](self._tables.address, self._number, b"", -1)

    def _read(self) -> None:
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._end()
            return
        self._incoming.write(data)
        try:
            if not self._is_ready:
                self._object.do_handshake()
                if self._object.selected_alpn_protocol() != _PROTOCOL:
                    self._end()
                    return
                self.peer = names_of_certificate(self._object.getpeercert())
                self._is_ready = True
            while plain := self._object.read(CHUNK_BYTES):
                self._kernels.brief["decrypted"](self._tables.address, self._number, plain, len(plain))
            self._end()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self._write_out()  # an alert says why
            raise

    def _send(self) -> None:
        """Encrypts what waits, and sends it as far as the socket takes it."""
        self._write_out()
        while self._is_ready and not self._unsent:
            row = self._tables.connections[self._number]
            at, size = int(row[layout.C_UNSENT_AT // 8]), int(row[layout.C_UNSENT_SIZE // 8])
            if at >= size:
                return
            chunk = ctypes.string_at(int(row[layout.C_UNSENT // 8]) + at, min(size - at, CHUNK_BYTES))
            self._object.write(chunk)
            self._taken = len(chunk)
            self._write_out()

    def _write_out(self) -> None:
        """Writes what is encrypted; says to the kernels what has left."""
        self._unsent += self._outgoing.read()
        while self._unsent:
            try:
                sent = os.write(self._descriptor, self._unsent)
            except BlockingIOError:
                break
            self._unsent = self._unsent[sent:]
        if bool(self._unsent) != self._is_blocked:
            self._is_blocked = not self._is_blocked
            self._kernels.brief["block"](self._tables.address, self._number, int(self._is_blocked))
        if not self._unsent and self._taken:
            taken, self._taken = self._taken, 0
            self._kernels.brief["encrypted"](self._tables.address, self._number, taken)
