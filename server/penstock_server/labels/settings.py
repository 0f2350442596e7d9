"""How labels are taken and kept: the table `[labels]` of the settings file."""

from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from penstock_server.errors import InvalidInputError
from penstock_server.per_model import check_own, with_own

LEAST_KEEP_BYTES: Final = 16 * 1024**2
MOST_PEERS: Final = 64


@dataclass(frozen=True, slots=True)
class OwnLabelSettings:
    """One model's own values in place of those of `LabelSettings`; None keeps the value there."""

    enabled: bool | None = None
    maturity_s: float | None = None


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """Whether labels are taken, and how long the answers that they are joined with are kept.

    Each answered row of a request with an id takes 84 bytes of disk until it is deleted.

    Attributes:
        enabled: whether labels are taken, and answers kept for them; off by default, since it writes each answer to disk.
        folder: where; None for one of this server's address below the data folder, which is PENSTOCK_DATA_DIR, or
            ~/.local/share/penstock.
        keep_s: how long an answer waits for its label.
        keep_bytes: the most bytes that all kept answers may take; the oldest are deleted first.
        maturity_s: how old an answer is when it counts. A label counts if it came by then: so labels that come quickly,
            which may be those of one kind of row, do not count before the others.
        wait_s: how long a label waits for its answer, which may be in another worker's file, or with a peer.
        peers: addresses of other replicas' REST ports, `http://host:port`: labels of no answer of this server are passed on.
        peer_token_file: holds the token that is shown to peers; None shows none.
        models: other values for models of these names.
    """

    enabled: bool = False
    folder: Path | None = None
    keep_s: float = 7 * 86400.0
    keep_bytes: int = 4 * 1024**3
    maturity_s: float = 3600.0
    wait_s: float = 60.0
    peers: tuple[str, ...] = ()
    peer_token_file: Path | None = None
    models: dict[str, OwnLabelSettings] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        # Written so that NaN is refused as well.
        if not 0 <= self.maturity_s < inf:
            raise InvalidInputError(f"labels.maturity_s is {self.maturity_s}, expected 0 seconds or more")
        if not self.maturity_s < self.keep_s < inf:
            raise InvalidInputError(
                f"labels.keep_s is {self.keep_s}, expected more than maturity_s, which is {self.maturity_s}"
            )
        if not 1 <= self.wait_s <= 3600:
            raise InvalidInputError(f"labels.wait_s is {self.wait_s}, expected 1 to 3600 seconds")
        if self.keep_bytes < LEAST_KEEP_BYTES:
            raise InvalidInputError(f"labels.keep_bytes is {self.keep_bytes}, expected {LEAST_KEEP_BYTES} or more")
        if len(self.peers) > MOST_PEERS:
            raise InvalidInputError(f"labels.peers has {len(self.peers)} addresses, expected {MOST_PEERS} at most")
        for peer in self.peers:
            _check_peer(peer)
        check_own("labels", self.models, self.of)

    def of(self, model: str) -> "LabelSettings":
        """The settings of one model."""
        own = self.models.get(model)
        return self if own is None else with_own(self, own)

    @property
    def is_on(self) -> bool:
        """Whether labels of any model are taken."""
        return self.enabled or any(own.enabled for own in self.models.values())

    def is_on_for(self, model: str) -> bool:
        """Whether labels of this model are taken."""
        return self.of(model).enabled


def argument_of(settings: LabelSettings) -> str:
    """The settings for the command line of the joiner's process."""
    return msgspec.json.encode(settings, enc_hook=str).decode()


def _check_peer(peer: str) -> None:
    wanted = "expected http://HOST:PORT or https://HOST:PORT of another server's REST port"
    try:
        parts = urlsplit(peer)
        has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError as error:
        raise InvalidInputError(f"labels.peers has {peer!r}, {wanted}: {error}") from error
    if parts.scheme not in ("http", "https") or not has_host or parts.query or parts.fragment or parts.username:
        raise InvalidInputError(f"labels.peers has {peer!r}, {wanted}")
