"""The worker's end of the supervisor's socket: commands in, events out, from plain threads."""

import socket
import threading
from collections.abc import Iterator

from penstock_server.control.messages import HEAD, Command, Event, command, framed


class WorkerLink:
    """Blocking reads on one thread; writes from any."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")
        self._lock = threading.Lock()

    def commands(self) -> Iterator[Command]:
        """Each command as it comes; ends when the supervisor is gone."""
        while len(head := self._read(HEAD.size)) == HEAD.size:
            (size,) = HEAD.unpack(head)
            body = self._read(size)
            if len(body) < size:
                return
            yield command(body)

    def _read(self, size: int) -> bytes:
        try:
            return self._file.read(size)
        except OSError:
            # A supervisor that is killed with events unread resets the socket instead of ending it.
            return b""

    def send(self, event: Event) -> None:
        """Sends an event; it is lost when the supervisor is gone, and then `commands` ends too."""
        with self._lock:
            try:
                self._connection.sendall(framed(event))
            except OSError:
                return
