"""The port's sockets, which the supervisor binds and all workers accept from, and the table by which they deal connections.

A connection attempt waits in the socket's queue until some worker accepts it. The supervisor keeps the sockets open, so no
attempt is lost when a worker ends: another takes it. The table has a row per worker, in memory that all of them map: how many
connections it has, and when it last looked for more. `kernels.wire.is_its_turn` decides from it who accepts.

The first worker that accepts calls has the sockets listen. Before that the system refuses connections, and a load balancer
that only connects does not take a server that loads its models for one that serves.
"""

import ctypes
import mmap
import os
import socket
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from errno import EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT
from typing import Any, Final

from penstock_server.transport import layout

UNIX: Final = "unix:"
_CLOSED: Final = -1
_NOT_HERE: Final = {EADDRNOTAVAIL, EAFNOSUPPORT}
_TRIES: Final = 8
"""A free port of one address may be taken at the host's others; then another is tried."""


class SharedPort:
    """The sockets and the table, as one process has them.

    Attributes:
        listeners: one per address of the host; they belong to this process, the port to all that hold them.
        descriptors: what another process needs for `inherited`.
        table: the table's address.
        workers: how many rows it has.
    """

    def __init__(self, listeners: Sequence[socket.socket], memory: int, slot: int = 0) -> None:
        self.listeners = list(listeners)
        self.descriptors = (memory, *(listener.fileno() for listener in listeners))
        self._memory = memory
        self._map = mmap.mmap(memory, 0)
        self._words = memoryview(self._map).cast("q")
        self._slot = slot
        self.table = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self.workers = len(self._map) // layout.PORT_ROW_BYTES

    @classmethod
    def bind(cls, address: str, workers: int = 1) -> "SharedPort":
        """Binds `host:port`, at each address that the host has here, or `unix:/path`; port 0 takes a free one.

        Raises:
            OSError: another program has it, or the host is not this machine.
        """
        listeners = _bound(address)
        memory = os.memfd_create("penstock-port", os.MFD_CLOEXEC)
        os.ftruncate(memory, workers * layout.PORT_ROW_BYTES)
        return cls(listeners, memory)

    @classmethod
    def inherited(cls, descriptors: Sequence[int], slot: int) -> "SharedPort":
        """The port of the process that passed these descriptors on; this process is the worker in this slot."""
        memory, *others = descriptors
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        return cls([socket.socket(fileno=descriptor) for descriptor in others], memory, slot)

    @property
    def number(self) -> int:
        """The port's number; 0 for a socket file."""
        name = self.listeners[0].getsockname()
        return 0 if isinstance(name, str) else int(name[1])

    @property
    def own_row(self) -> int:
        """The address of this worker's row."""
        return self.table + self._slot * layout.PORT_ROW_BYTES

    def connections(self, slot: int) -> int:
        """How many connections a worker has."""
        return self._words[(slot * layout.PORT_ROW_BYTES + layout.P_CONNECTIONS) // layout.WORD_BYTES]

    def keep(self, slots: Collection[int]) -> None:
        """Clears the rows of all other slots, whose workers are gone: nobody waits for them to accept."""
        for slot in range(self.workers):
            if slot not in slots:
                self._set(slot, connections=0, looked_at=0)

    def begin(self) -> None:
        """Has the sockets listen, if they do not yet, and counts on this worker from now on."""
        for listener in self.listeners:
            listener.setblocking(False)
            listener.listen(layout.BACKLOG)
        self._set(self._slot, connections=0, looked_at=time.monotonic_ns())

    def leave(self) -> None:
        """Tells the other workers that this one accepts nothing now."""
        self._set(self._slot, looked_at=0)

    def look(self, connections: int) -> None:
        """Tells the other workers that this one accepts now, and how many connections it has."""
        self._set(self._slot, connections=connections, looked_at=time.monotonic_ns())

    def is_least(self, connections: int) -> bool:
        """Whether no other worker that accepts has fewer connections than this one, and tells them how many it has."""
        self.look(connections)
        now = time.monotonic_ns()
        for slot in range(self.workers):
            if slot != self._slot and self.connections(slot) < connections:
                looked_at = self._words[(slot * layout.PORT_ROW_BYTES + layout.P_LOOKED_AT) // layout.WORD_BYTES]
                if now - looked_at < layout.SILENT_NS:
                    return False
        return True

    def refuse(self) -> None:
        """Has the system refuse connections from now on, whatever the other holders of the sockets do, for good."""
        for listener in self.listeners:
            with suppress(OSError):  # it has never listened
                listener.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Lets go of this process's copies of the descriptors; the table stays mapped."""
        self.leave()
        for listener in self.listeners:
            listener.close()
        self.listeners.clear()
        if self._memory != _CLOSED:
            os.close(self._memory)
            self._memory = _CLOSED

    def _set(self, slot: int, *, looked_at: int, connections: int | None = None) -> None:
        row = slot * layout.PORT_ROW_BYTES
        self._words[(row + layout.P_LOOKED_AT) // layout.WORD_BYTES] = looked_at
        if connections is not None:
            self._words[(row + layout.P_CONNECTIONS) // layout.WORD_BYTES] = connections


def _bound(address: str) -> list[socket.socket]:
    if address.startswith(UNIX):
        return [_socket(socket.AF_UNIX, address.removeprefix(UNIX))]
    host, _, number = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    for left in reversed(range(_TRIES)):
        try:
            return _bound_all(host, int(number))
        except OSError as error:
            if int(number) or error.errno != EADDRINUSE or not left:
                raise
    raise AssertionError("the last try returns or raises")


def _bound_all(host: str, number: int) -> list[socket.socket]:
    """A socket for each address of the host, all with the same port. Of several, those that this machine lacks are left out.

    A machine without IPv6 may have a name for `::1` all the same.
    """
    found = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    places = list(dict.fromkeys((family, place) for family, _, _, _, place in found))[: layout.LISTENERS]
    listeners: list[socket.socket] = []
    try:
        for left, (family, place) in zip(reversed(range(len(places))), places, strict=True):
            chosen = listeners[0].getsockname()[1] if listeners else number
            try:
                listeners.append(_socket(family, (place[0], chosen, *place[2:])))
            except OSError as error:
                if error.errno not in _NOT_HERE or not (listeners or left):
                    raise
    except OSError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _socket(family: int, place: Any) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # An address of all interfaces takes both families, as gRPC's own servers do.
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(place[0] != "::"))
        opened.bind(place)
    except OSError:
        opened.close()
        raise
    return opened
