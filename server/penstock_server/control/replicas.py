"""What other servers have counted, asked over their HTTP ports: `GET /v1/evidence/MODEL`."""

import asyncio
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlencode

import msgspec
import structlog

from penstock_server.clock import monotonic
from penstock_server.rollout.evidence import Snapshot

log = structlog.get_logger(__name__)

TIMEOUT_S: Final = 3.0
MAX_REPLY_BYTES: Final = 2**20
_PART_BYTES: Final = 2**16

_snapshots: Final = msgspec.json.Decoder(Snapshot)


class Replicas:
    """Asks each of some servers, at the same time. One that does not answer is left out of this look, and told of once.

    Args:
        addresses: of their HTTP ports.
        token_file: what they are shown as a bearer token, read at each look; None for nothing.
        timeout_s: how long a look waits for them.
    """

    def __init__(self, addresses: Sequence[str], token_file: Path | None = None, timeout_s: float = TIMEOUT_S) -> None:
        self._addresses = tuple(address.rstrip("/") for address in addresses)
        self._token_file = token_file
        self._timeout_s = timeout_s
        self._away: dict[str, str] = {}

    async def look(self, model: str, version: str, champion: str) -> Mapping[str, Snapshot]:
        """What each has counted of a version and its champion, by address."""
        query = urlencode({"version": version, "champion": champion})
        places = [f"{address}/v1/evidence/{quote(model, safe='')}?{query}" for address in self._addresses]
        answers = await asyncio.gather(*(asyncio.to_thread(self._ask, place) for place in places))
        found = {}
        for address, answer in zip(self._addresses, answers, strict=True):
            if isinstance(answer, Snapshot):
                self._away.pop(address, None)
                found[address] = answer
            elif self._away.get(address) != answer:
                self._away[address] = answer
                log.warning("a replica does not say what it counted", address=address, reason=answer)
        return found

    def _ask(self, place: str) -> Snapshot | str:
        try:
            body = get(place, self._token_file, self._timeout_s, MAX_REPLY_BYTES)
            return _snapshots.decode(body)
        except (OSError, HTTPException, ValueError, msgspec.DecodeError, RecursionError) as error:
            return str(error)[:200]


def get(address: str, token_file: Path | None, timeout_s: float, max_bytes: int) -> bytes:
    """A reply's body, of at most so many bytes; blocks.

    Raises:
        OSError: there is none, or it takes longer.
        ValueError: it is longer.
    """
    deadline_s = monotonic() + timeout_s
    headers = {"User-Agent": "penstock", "Accept-Encoding": "identity"}
    if token_file is not None:
        headers["Authorization"] = f"Bearer {token_file.read_text().strip()}"
    request = urllib.request.Request(address, headers=headers)  # noqa: S310 - http or https, checked by the settings
    with urllib.request.urlopen(request, timeout=timeout_s) as reply:  # noqa: S310 - the same
        body = bytearray()
        # In parts: each wait of the socket's has the whole time.
        while part := reply.read1(_PART_BYTES):
            body += part
            if len(body) > max_bytes:
                raise ValueError(f"the answer has more than {max_bytes:,} bytes")
            if monotonic() > deadline_s:
                raise TimeoutError(f"the answer takes longer than {timeout_s:g} s")
    return bytes(body)
