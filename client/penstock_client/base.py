"""What `Client` and `AsyncClient` share: the settings, checked on construction, and the session made from them."""

import random
import time
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Final, Literal, get_args

from penstock_client.channel import MAX_MESSAGE_BYTES, ChannelOptions, Tls, channel_options, checked_address
from penstock_client.errors import PenstockClientError
from penstock_client.http2.target import Target, target_of
from penstock_client.retry import Backoff
from penstock_client.session import Session

Transport = Literal["auto", "sockets", "grpcio"]
"""How calls reach the server."""
DEFAULT_TIMEOUT_S: Final = 10.0
DEFAULT_RETRIES: Final = 3


@dataclass(eq=False)
class ClientBase:
    """The settings of a client.

    Attributes:
        address: the server's, as "host:port" or another name that gRPC resolves.
        tls: True for TLS with gRPC's own list of authorities, a `Tls` for more; None or False for plain text.
        timeout_s: the deadline of a call that sets none; it covers attempts, pauses and the fetch of metadata.
        retries: how many attempts may follow one that reached no server.
        backoff: how the pauses between them grow.
        headers: sent with every call, such as an authorization.
        max_message_bytes: the longest message sent or received.
        options: further channel options of gRPC; they override the client's own.
        transport: "sockets" for connections of the client's own, "grpcio" for a channel of grpcio, which costs several times
            the CPU per call. "auto" takes sockets wherever they do: on Linux, without client certificates, channel options,
            proxies, headers that are no plain text, or addresses that need a resolver of gRPC.

    Raises:
        ValueError: a setting out of its range.
    """

    address: str
    _: KW_ONLY
    tls: Tls | bool | None = field(default=None, repr=False)
    timeout_s: float = DEFAULT_TIMEOUT_S
    retries: int = DEFAULT_RETRIES
    backoff: Backoff = field(default_factory=Backoff)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    max_message_bytes: int = MAX_MESSAGE_BYTES
    options: ChannelOptions = field(default=(), repr=False)
    transport: Transport = "auto"

    def __post_init__(self) -> None:
        """Checks the settings and makes the session."""
        checked_address(self.address)
        if self.max_message_bytes <= 0:
            raise ValueError(f"max_message_bytes is expected above 0, got {self.max_message_bytes}")
        if self.transport not in get_args(Transport):
            raise ValueError(f"transport is expected as one of {get_args(Transport)}, got {self.transport!r}")
        self._is_closed = False
        self._session = Session(
            self.address,
            timeout_s=self.timeout_s,
            retries=self.retries,
            backoff=self.backoff,
            max_message_bytes=self.max_message_bytes,
            clock=time.monotonic,
            fraction=random.random,
        )

    def _tls(self) -> Tls | None:
        return self.tls if isinstance(self.tls, Tls) else Tls() if self.tls else None

    def _options(self) -> ChannelOptions:
        return channel_options(self._tls(), self.max_message_bytes, self.options)

    def _target(self) -> Target | None:
        """Where sockets of the client's own connect; None if calls go by grpcio."""
        if self.transport == "grpcio":
            return None
        found = target_of(self.address, self._tls(), self.headers, self.options, self.max_message_bytes)
        if isinstance(found, Target):
            return found
        if self.transport == "sockets":
            raise ValueError(f"transport='sockets' does not do here: {found}")
        return None

    def _check_open(self) -> None:
        if self._is_closed:
            raise PenstockClientError("the client is closed", server=self.address)
