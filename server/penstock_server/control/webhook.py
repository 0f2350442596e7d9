"""Takes MLflow's webhooks: each that is genuine wakes the poll of the sources, and that is all that it does.

What a webhook says is never acted on: it may be late, out of order, repeated, an example, or of a registry that nobody
follows. The poll finds out what is true. The signature is that of `mlflow.webhooks.delivery`: HMAC with SHA-256 of the
delivery's id, the time and the body, joined by dots, and the key is the secret's text as it is.
"""

import base64
import hashlib
import hmac
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final, Literal

import structlog

from penstock_server.clock import Clock
from penstock_server.control.settings import WebhookSettings

log = structlog.get_logger(__name__)

PATH: Final = ("v1", "webhook")
"""Where the HTTP port takes them."""
MAX_BODY_BYTES: Final = 256 * 1024
"""A version's tags are in the body, and MLflow lets one have 100,000 characters."""
MAX_DELIVERIES: Final = 4096
"""So many deliveries are remembered; one that is repeated after them wakes the poll once more."""
_LOG_PAUSE_S: Final = 60.0
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")
_MAX_ID_CHARS: Final = 200

Outcome = Literal["accepted", "repeated", "refused"]


def signature(secret: str, delivery: str, moment: str, body: bytes) -> str:
    """What MLflow signs a webhook with.

    >>> signature("a secret of a test", "id", "1700000000", b"{}")
    'v1,OFYlfbk+YhF57egJWsyIyTMz+oWeaj7fooF34GQnvg4='
    """
    signed = f"{delivery}.{moment}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret.encode(), signed, hashlib.sha256)).decode()


def refusal(secret: str, headers: Mapping[str, str], body: bytes, *, now_s: float, tolerance_s: float) -> str:
    """Why a webhook is not genuine, in one sentence; "" if it is.

    Args:
        secret: shared with MLflow.
        headers: by name in lower case.
        body: as it came.
        now_s: seconds since 1970.
        tolerance_s: how far its time may be from that, in both directions.
    """
    delivery, moment, given = (
        headers.get(f"x-mlflow-{name}", "") for name in ("delivery-id", "timestamp", "signature")
    )
    if not (delivery and moment and given):
        return "expected the headers X-MLflow-Delivery-Id, X-MLflow-Timestamp and X-MLflow-Signature of a webhook with a secret"
    if len(delivery) > _MAX_ID_CHARS or not delivery.isascii() or not _TIMESTAMP.fullmatch(moment):
        return "expected a short delivery id, and a timestamp in seconds since 1970"
    if not hmac.compare_digest(signature(secret, delivery, moment, body).encode(), given.encode("latin-1", "replace")):
        return "the signature is not that of this secret and this body"
    if abs(now_s - int(moment)) > tolerance_s:
        return f"the timestamp is more than {tolerance_s:g} s from this machine's clock"
    return ""


class WebhookReceiver:
    """Checks each webhook, and wakes the poll.

    Args:
        settings: where the secret is, which is read at each webhook, so that it can be exchanged.
        wake: has the sources polled soon.
        wall: seconds since 1970.

    Attributes:
        counts: how many came, by what became of them.
    """

    def __init__(self, settings: WebhookSettings, wake: Callable[[], None], *, wall: Clock = time.time) -> None:
        self._settings = settings
        self._wake = wake
        self._wall = wall
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._logged_s = float("-inf")
        self.counts: dict[Outcome, int] = {"accepted": 0, "repeated": 0, "refused": 0}

    def receive(self, headers: Mapping[str, str], body: bytes) -> str:
        """Takes one; why it is refused, or "".

        Raises:
            InvalidInputError: the secret cannot be read now; MLflow is to send it again.
        """
        now_s = self._wall()
        why = refusal(self._settings.read_secret(), headers, body, now_s=now_s, tolerance_s=self._settings.tolerance_s)
        if why:
            self.counts["refused"] += 1
            if now_s - self._logged_s >= _LOG_PAUSE_S:
                self._logged_s = now_s
                log.warning("a webhook is refused", reason=why)
            return why
        delivery = headers["x-mlflow-delivery-id"]
        if delivery in self._seen:
            self.counts["repeated"] += 1
            return ""
        self._seen[delivery] = None
        if len(self._seen) > MAX_DELIVERIES:
            self._seen.popitem(last=False)
        self.counts["accepted"] += 1
        self._wake()
        return ""
