"""Fetches an issuer's keys from its address, within bounds of time and bytes, and without following redirections."""

import time
import urllib.request
from collections.abc import Callable
from http.client import HTTPException
from typing import Final

from penstock_server.access.jwt_tokens import Key, keys_of_set
from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.redirections import NoRedirection

TIMEOUT_S: Final = 5.0
"""For the whole answer."""
MAX_BYTES: Final = 1 << 20
_CHUNK_BYTES: Final = 1 << 14


def fetch_keys(address: str, *, clock: Callable[[], float] = time.monotonic) -> tuple[Key, ...]:
    """The keys at an address.

    Raises:
        UnavailableError: it does not answer, or not so.
        InvalidInputError: what it answers is no set of keys.
    """
    give_up_s = clock() + TIMEOUT_S
    request = urllib.request.Request(address, headers={"Accept": "application/json"})  # noqa: S310 - the settings allow https and http alone
    try:
        with urllib.request.build_opener(NoRedirection).open(request, timeout=TIMEOUT_S) as reply:
            content = b""
            while chunk := reply.read1(_CHUNK_BYTES):
                content += chunk
                if len(content) > MAX_BYTES or clock() > give_up_s:
                    raise UnavailableError(f"{address} takes more than {MAX_BYTES:,} bytes or {TIMEOUT_S:g} seconds")
    except (OSError, HTTPException, ValueError) as error:
        raise UnavailableError(f"{address} does not answer with keys: {error}") from error
    try:
        return keys_of_set(content.decode(), address)
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{address} answers with no text") from error
