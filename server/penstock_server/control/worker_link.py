"""The worker's end of the supervisor's socket: commands in, events out, from plain threads."""

import socket
import threading
from collections.abc import Iterator

from penstock_server import frames
from penstock_server.control.messages import Command, Event, command, framed


class WorkerLink:
    """Blocking reads on one thread; writes from any."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")
        self._lock = threading.Lock()

    def commands(self) -> Iterator[Command]:
        """Each command as it comes; ends when the supervisor is gone."""
        while (body := frames.receive(self._file)) is not None:
            yield command(body)

    def send(self, event: Event) -> None:
        """Sends an event; it is lost when the supervisor is gone, and then `commands` ends too."""
        with self._lock:
            try:
                self._connection.sendall(framed(event))
            except OSError:
                return
