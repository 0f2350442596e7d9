"""The TCP connections of a server that ends: grpc's core gives no way to close one, the operating system does.

The core's own shutdown tells clients to go away, and until they have read that it ends each call that arrives with
CANCELLED, which clients take for their own doing. A connection that is closed gives its calls UNAVAILABLE, which says
what happened, and which clients retry. So a draining server closes connections itself, and shuts the core down when
there are none.
"""

import os
import socket
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from typing import Final

_FOLDERS: Final = ("/proc/self/fd", "/dev/fd")


def close_listeners(address: str) -> None:
    """Accepts no more connections at an address, `host:port` or `unix:path`."""
    _shut_down(address, lambda opened: bool(opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)))


def close_connections(address: str, busy_peers: Collection[str] = ()) -> None:
    """Closes the connections that were accepted at an address, unless a peer of theirs is busy.

    What was written to them is still delivered.

    Args:
        address: where the server listens.
        busy_peers: as grpc names them, `ipv4:127.0.0.1:5000`.
    """
    if busy_peers and address.startswith("unix:"):
        return  # grpc gives every caller of a socket file the same name
    ports = {_port(peer) for peer in busy_peers}

    def is_idle(opened: socket.socket) -> bool:
        peer = opened.getpeername()  # an OSError where nothing is connected
        return not isinstance(peer, tuple) or peer[1] not in ports

    _shut_down(address, is_idle)


def _shut_down(address: str, chosen: Callable[[socket.socket], bool]) -> None:
    place = address.removeprefix("unix:") if address.startswith("unix:") else _port(address)
    for opened in _sockets():
        with suppress(OSError), opened:
            if _place(opened) == place and chosen(opened):
                opened.shutdown(socket.SHUT_RDWR)


def _place(opened: socket.socket) -> str | int:
    name = opened.getsockname()
    return name[1] if isinstance(name, tuple) else str(name)


def _port(address: str) -> int:
    _, _, port = address.rpartition(":")
    return int(port) if port.isdecimal() else -1


def _sockets() -> Iterator[socket.socket]:
    """Every socket of this process. Each is a copy: the core may close its own, and the number then is another file's."""
    for descriptor in _descriptors():
        with suppress(OSError):
            copied = os.dup(descriptor)
            if stat.S_ISSOCK(os.fstat(copied).st_mode):
                yield socket.socket(fileno=copied)
            else:
                os.close(copied)


def _descriptors() -> list[int]:
    for folder in _FOLDERS:
        with suppress(OSError):
            return [int(name) for name in os.listdir(folder) if name.isdecimal()]
    return []
