"""What `Client` and `AsyncClient` share: the settings, checked on construction, and the session made from them."""

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from functools import partial
from itertools import cycle
from typing import Any, Final, Literal, get_args

from penstock_client.balance import Balancing
from penstock_client.balanced import numbers
from penstock_client.channel import MAX_MESSAGE_BYTES, ChannelOptions, Tls, addresses_of, channel_options, is_url
from penstock_client.errors import InvalidRequestError, PenstockClientError, UnsupportedError
from penstock_client.headers import Headers, call_headers, trace_headers
from penstock_client.http2.target import Target, target_of
from penstock_client.retry import Backoff, RetryBudget
from penstock_client.session import Session

Transport = Literal["auto", "sockets", "grpcio"]
"""How calls reach the server."""
SERVER_VARIABLE: Final = "PENSTOCK_SERVER"
DEFAULT_TIMEOUT_S: Final = 10.0
DEFAULT_RETRIES: Final = 3
_NAME: Final = "dns:"
_ROUND_ROBIN: Final = '{"loadBalancingConfig": [{"round_robin": {}}]}'


@dataclass(eq=False)
class ClientBase:
    """The settings of a client.

    Attributes:
        address: the server's, as "host:port" or another name that gRPC resolves; what `PENSTOCK_SERVER` says where it is empty.
            Several, as a list or with commas, or "dns:///host:port" for all addresses of a name: calls are spread over those
            that are well. "https://host" and "http://host:port" are asked by REST, with the same methods, but for streams.
        tls: True for TLS with gRPC's own list of authorities, a `Tls` for more; False for plain text; None for what the
            environment says (`Tls.from_environment`).
        timeout_s: the deadline of a call that sets none; it covers attempts, pauses and the fetch of metadata.
        retries: how many attempts may follow one that reached no server.
        backoff: how the pauses between them grow.
        budget: how many retries the client affords while calls fail; None for no limit.
        headers: sent with every call, such as an authorization.
        max_message_bytes: the longest message sent or received.
        hedge_after_s: how long an answer may take before a prediction is asked for once more, of another server where there are
            several; the sooner answer counts. None asks once.
        balancing: how several servers are looked after.
        options: further channel options of gRPC; they override the client's own.
        transport: "sockets" for connections of the client's own, "grpcio" for a channel of grpcio, which costs several times
            the CPU per call. "auto" takes sockets wherever they do: on Linux, without client certificates, channel options,
            proxies, headers that are no plain text, or addresses that need a resolver of gRPC.

    Raises:
        ValueError: a setting out of its range.
    """

    address: str | Sequence[str] = ""
    _: KW_ONLY
    tls: Tls | bool | None = field(default=None, repr=False)
    timeout_s: float = DEFAULT_TIMEOUT_S
    retries: int = DEFAULT_RETRIES
    backoff: Backoff = field(default_factory=Backoff)
    budget: RetryBudget | None = field(default_factory=RetryBudget)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    max_message_bytes: int = MAX_MESSAGE_BYTES
    hedge_after_s: float | None = None
    balancing: Balancing = field(default_factory=Balancing)
    options: ChannelOptions = field(default=(), repr=False)
    transport: Transport = "auto"

    def __post_init__(self) -> None:
        """Checks the settings and makes the session."""
        self._addresses = addresses_of(self.address or os.environ.get(SERVER_VARIABLE, ""))
        self._server = ", ".join(self._addresses)
        if self.tls is None:
            self.tls = Tls.from_environment()
        if self.max_message_bytes <= 0:
            raise ValueError(f"max_message_bytes is expected above 0, got {self.max_message_bytes}")
        if self.hedge_after_s is not None and self.hedge_after_s <= 0:
            raise ValueError(f"hedge_after_s is expected above 0, got {self.hedge_after_s}")
        if self.transport not in get_args(Transport):
            raise ValueError(f"transport is expected as one of {get_args(Transport)}, got {self.transport!r}")
        self._is_closed = False
        self._targets = {address: self._target(address) for address in self._addresses}
        self._turns = cycle(self._addresses)
        # grpcio looks a name up, and spreads calls, by itself.
        self._has_names = any(address.startswith(_NAME) and target for address, target in self._targets.items())
        self._is_balanced = self._has_names or len(self._targets) > 1
        self._session = Session(
            self._server,
            timeout_s=self.timeout_s,
            retries=self.retries,
            backoff=self.backoff,
            budget=self.budget,
            max_message_bytes=self.max_message_bytes,
            clock=time.monotonic,
            fraction=random.random,
        )

    def _tls(self) -> Tls | None:
        return self.tls if isinstance(self.tls, Tls) else Tls() if self.tls else None

    def _options(self, address: str) -> ChannelOptions:
        spread = (("grpc.service_config", _ROUND_ROBIN),) if address.startswith(_NAME) else ()
        return channel_options(self._tls(), self.max_message_bytes, (*spread, *self.options))

    def _calls_of(self, address: str, target: Target | None) -> Any:
        """What calls one server: at the target, or by grpcio."""
        raise NotImplementedError

    def _resolved(self) -> dict[str, Callable[[], Any]]:
        """The servers by address, and what makes the calls of each; raises `OSError` where no name has an address."""
        found: dict[str, Callable[[], Any]] = {}
        failed: OSError | None = None
        for address, target in self._targets.items():
            if target is None or not address.startswith(_NAME):
                found[address] = partial(self._calls_of, address, target)
                continue
            try:
                for number in numbers(target.host, target.port):
                    found[f"{number} {target.port}"] = partial(self._calls_of, address, replace(target, host=number))
            except OSError as error:
                failed = error
        if failed is not None and not found:
            raise failed
        return found

    def _stream_address(self) -> str:
        """The server of the next stream; each in its turn."""
        address = next(self._turns)
        if is_url(address):
            raise UnsupportedError("a stream needs gRPC; expected host:port as the address", server=address)
        return address

    def _target(self, address: str) -> Target | None:
        """Where sockets of the client's own connect; None if calls go by grpcio, or by REST."""
        if self.transport == "grpcio" or is_url(address):
            return None
        found = target_of(address, self._tls(), self.headers, self.options, self.max_message_bytes)
        if isinstance(found, Target):
            return found
        if self.transport == "sockets":
            raise ValueError(f"transport='sockets' does not do here: {found}")
        return None

    def _headers(self, model: str, own: Mapping[str, str] | None) -> Headers:
        """What goes with one call; an error names the model and the server."""
        if own is None:
            return trace_headers()
        try:
            return call_headers(own)
        except InvalidRequestError as error:
            error.model, error.server = model, self._server
            raise

    def _check_open(self) -> None:
        if self._is_closed:
            raise PenstockClientError("the client is closed", server=self._server)
