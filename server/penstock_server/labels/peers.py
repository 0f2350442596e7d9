"""Passes labels on to the other servers of the same models: one of them may have the answer that this one has not.

Each peer has a thread and a queue of its own, so that one that is away holds up no other. What a peer does not take is sent
again for as long as labels wait. Labels go as records, which are marked there, and are never passed on a second time.
"""

import http.client
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import numpy as np
import structlog
from numpy.typing import NDArray

from penstock.names import PASSED_ON_TYPE
from penstock_server.labels.report import PeerCounts

log = structlog.get_logger(__name__)

TIMEOUT_S: Final = 5.0
FIRST_PAUSE_S: Final = 0.25
LONGEST_PAUSE_S: Final = 5.0
WARN_S: Final = 60.0
MOST_BATCHES: Final = 64
"""That may wait for one peer; then labels are offered again later."""
_PATH: Final = "/v1/feedback"
_REFUSED: Final = (400, 401, 403, 404, 405, 413, 501)
"""Of HTTP, what does not become better when it is sent again."""


@dataclass(slots=True)
class LabelBatch:
    """Labels on their way.

    Attributes:
        places, turns: of the labels, where they wait.
        body: the records.
        until_s: how long they are sent again.
        left: peers that have not taken them.
    """

    places: NDArray[np.intp]
    turns: NDArray[np.int64]
    body: bytes
    until_s: float
    left: int


class PeerRefusedError(Exception):
    """A peer did not take labels; `is_final` if it never will."""

    def __init__(self, text: str, *, is_final: bool) -> None:
        super().__init__(text)
        self.is_final = is_final


Send = Callable[[bytes], None]
"""Sends records to one peer; raises `PeerRefusedError`."""


class Peers:
    """Sends labels to all peers.

    Args:
        senders: by the peer's address.
        wait_s: how long labels are sent again.
        clock: monotonic seconds.
    """

    def __init__(self, senders: dict[str, Send], *, wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._wait_s = wait_s
        self._clock = clock
        self._changed = threading.Condition()
        self._queues: dict[str, deque[LabelBatch]] = {address: deque() for address in senders}
        self._sent = dict.fromkeys(senders, 0)
        self._failed = dict.fromkeys(senders, 0)
        self._taken: list[tuple[NDArray[np.intp], NDArray[np.int64]]] = []
        self._is_closed = False
        for address, send in senders.items():
            threading.Thread(target=self._run, args=(address, send), name=f"peer {address}", daemon=True).start()

    def offer(self, places: NDArray[np.intp], turns: NDArray[np.int64], records: NDArray[np.int64]) -> bool:
        """Takes labels to pass on; false if too many wait already."""
        with self._changed:
            if any(len(queue) >= MOST_BATCHES for queue in self._queues.values()):
                return False
            batch = LabelBatch(places, turns, records.tobytes(), self._clock() + self._wait_s, len(self._queues))
            for queue in self._queues.values():
                queue.append(batch)
            self._changed.notify_all()
            return True

    def taken(self) -> Sequence[tuple[NDArray[np.intp], NDArray[np.int64]]]:
        """The places and turns of labels that all peers have taken since the last call."""
        with self._changed:
            taken, self._taken = self._taken, []
        return taken

    def counts(self) -> dict[str, PeerCounts]:
        """What was sent to each peer, and what it did not take, since the start."""
        return {address: PeerCounts(self._sent[address], self._failed[address]) for address in self._queues}

    def close(self) -> None:
        """Sends nothing more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _run(self, address: str, send: Send) -> None:
        queue, pause_s, warned_s = self._queues[address], FIRST_PAUSE_S, float("-inf")
        while (batch := self._next(queue)) is not None:
            try:
                send(batch.body)
            except PeerRefusedError as error:
                now_s = self._clock()
                if now_s - warned_s > WARN_S:
                    warned_s = now_s
                    log.warning("a peer takes no labels", peer=address, reason=str(error))
                if error.is_final or now_s > batch.until_s:
                    self._end(address, batch, is_taken=False)
                else:
                    with self._changed:
                        self._changed.wait_for(lambda: self._is_closed, pause_s)
                    pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                pause_s = FIRST_PAUSE_S
                self._end(address, batch, is_taken=True)

    def _next(self, queue: deque[LabelBatch]) -> LabelBatch | None:
        """The first batch, which stays in the queue; None once nothing more is to be sent."""
        with self._changed:
            self._changed.wait_for(lambda: bool(queue) or self._is_closed)
            return None if self._is_closed else queue[0]

    def _end(self, address: str, batch: LabelBatch, *, is_taken: bool) -> None:
        with self._changed:
            self._queues[address].popleft()
            (self._sent if is_taken else self._failed)[address] += len(batch.places)
            batch.left -= is_taken
            if batch.left == 0:
                self._taken.append((batch.places, batch.turns))


def http_sender(address: str, token: str = "") -> Send:
    """Sends records to a peer's REST port.

    Args:
        address: of the port.
        token: shown to it; "" for none.
    """
    parts = urlsplit(address)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    headers = {"content-type": PASSED_ON_TYPE} | ({"authorization": f"Bearer {token}"} if token else {})

    def send(body: bytes) -> None:
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            connection = http.client.HTTPSConnection(
                host, port, timeout=TIMEOUT_S, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
        try:
            connection.request("POST", parts.path.rstrip("/") + _PATH, body, headers)
            reply = connection.getresponse()
            text = reply.read(1000).decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise PeerRefusedError(str(error) or type(error).__name__, is_final=False) from error
        finally:
            connection.close()
        if reply.status != 200:
            raise PeerRefusedError(f"HTTP status {reply.status}: {text[:200]}", is_final=reply.status in _REFUSED)

    return send
