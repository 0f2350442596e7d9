"""Keeps credentials fresh: reads their files again when these change, and fetches the keys of issuers, on a thread of its own.

What cannot be read or fetched leaves what was known in force, and the log says so once. An issuer's address is asked at the
start, every `refresh_s`, and when a token names a key that is not known: then at most once per `RARELY_S`, so that guesses
cost the issuer nothing.
"""

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from pathlib import Path
from typing import Final, TypeVar

import structlog

from penstock_server.access.credentials import Credentials, credentials_of, keys_in_file
from penstock_server.access.fetch import fetch_keys
from penstock_server.access.identity import Identity
from penstock_server.access.jwt_tokens import Key
from penstock_server.access.settings import AccessSettings
from penstock_server.access.tokens import read_token_file
from penstock_server.errors import PenstockError

log = structlog.get_logger(__name__)

LOOK_S: Final = 1.0
"""How often files are looked at."""
RARELY_S: Final = 15.0
FIRST_RETRY_S: Final = 1.0
LAST_RETRY_S: Final = 60.0
"""How long it takes until an address that does not answer is asked again: at first, and twice as long each time, up to this."""

ResultT = TypeVar("ResultT")
Stamp = tuple[int, int, int]


def stamp_of(file: Path) -> Stamp | None:
    """What changes when a file does; None if it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


class _Address:
    """When an issuer's address is asked."""

    def __init__(self) -> None:
        self.next_s = -inf
        self.asked_s = -inf
        self.pause_s = FIRST_RETRY_S


class CredentialKeeper:
    """The thread that keeps credentials fresh.

    Args:
        settings: of access.
        use: takes new credentials; called on this thread, and once by `start` on its caller's.
    """

    def __init__(
        self,
        settings: AccessSettings,
        use: Callable[[Credentials], None],
        *,
        fetch: Callable[[str], tuple[Key, ...]] = fetch_keys,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._use = use
        self._fetch = fetch
        self._clock = clock
        self._tokens: Mapping[bytes, Identity] = {}
        self._keys: dict[str, tuple[Key, ...]] = {}
        self._stamps: dict[Path, Stamp | None] = {}
        self._addresses = {name: _Address() for name, issuer in settings.issuers.items() if issuer.is_fetched}
        self._wanted: set[str] = set()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Reads the files, and keeps all fresh from now on; what is fetched comes later."""
        self._read_files()
        self._use(credentials_of(self._settings, self._tokens, dict(self._keys)))
        self._thread = threading.Thread(target=self._run, name="credentials", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed.set()

    def want_keys(self, issuer: str) -> None:
        """A token names a key of this issuer that is not known; from any thread."""
        self._wanted.add(issuer)

    def look(self) -> None:
        """Reads and fetches what is due, and hands over what changed."""
        has_changed = self._read_files()
        if self._fetch_due() or has_changed:
            self._use(credentials_of(self._settings, self._tokens, dict(self._keys)))

    def _run(self) -> None:
        while True:
            try:
                self.look()
            except Exception:
                log.exception("credentials could not be looked after")
            if self._closed.wait(LOOK_S):
                return

    def _read_files(self) -> bool:
        """Reads the files that have changed; whether something did."""
        has_changed = False
        tokens = self._settings.tokens
        if tokens is not None and self._is_new(tokens):
            found = _read("the file of tokens", partial(read_token_file, tokens))
            if found is not None:
                self._tokens, has_changed = found, True
        for name, issuer in self._settings.issuers.items():
            if issuer.file is not None and self._is_new(issuer.file):
                keys = _read(f"the keys of {name}", partial(keys_in_file, issuer, issuer.file))
                if keys is not None:
                    self._keys[name], has_changed = keys, True
        return has_changed

    def _is_new(self, file: Path) -> bool:
        stamp = stamp_of(file)
        if self._stamps.get(file, ()) == stamp:
            return False
        self._stamps[file] = stamp
        return True

    def _fetch_due(self) -> bool:
        has_changed = False
        now_s = self._clock()
        for name, address in self._addresses.items():
            is_wanted = name in self._wanted and now_s - address.asked_s >= RARELY_S
            if not is_wanted and now_s < address.next_s:
                continue
            self._wanted.discard(name)
            address.asked_s = now_s
            settings = self._settings.issuers[name]
            keys = _read(f"the keys of {name}", partial(self._fetch, settings.jwks))
            if keys is None:
                address.next_s = now_s + address.pause_s
                address.pause_s = min(2 * address.pause_s, LAST_RETRY_S)
            else:
                address.next_s, address.pause_s = now_s + settings.refresh_s, FIRST_RETRY_S
                has_changed = has_changed or keys != self._keys.get(name)
                self._keys[name] = keys
        return has_changed


def _read(what: str, read: Callable[[], ResultT]) -> ResultT | None:
    """What is read; None where it cannot be, which the log says."""
    try:
        return read()
    except PenstockError as error:
        log.warning("callers are checked against what was known before", about=what, reason=str(error))
        return None
