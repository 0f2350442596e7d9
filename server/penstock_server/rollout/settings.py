"""The settings of rollouts: whether this server acts on them, and whose evidence it acts on."""

from dataclasses import dataclass
from math import inf
from pathlib import Path
from urllib.parse import urlsplit

from penstock_server.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class RolloutSettings:
    """Who acts on the rollouts that the registry declares.

    Attributes:
        enabled: this server may: it advances, promotes and rolls back, and writes that to the registry. Of several servers
            that may, one does.
        look_s: how often it looks at the evidence.
        lease_s: how long it takes until another server acts in place of one that has ended; the same for all of them. A
            quarter of it must be longer than the registry takes to answer.
        replicas: the HTTP ports of the other servers whose requests count too, such as `http://10.0.0.2:8002`.
        prometheus: a Prometheus that scrapes all servers, in place of `replicas`.
        token_file: what the replicas or Prometheus are shown as a bearer token.
    """

    enabled: bool = False
    look_s: float = 5.0
    lease_s: float = 45.0
    replicas: tuple[str, ...] = ()
    prometheus: str | None = None
    token_file: Path | None = None

    def __post_init__(self) -> None:
        # Written so that NaN, which TOML can say, is refused as well.
        if not 0.1 <= self.look_s < inf:
            raise InvalidInputError(f"rollouts.look_s is {self.look_s}, expected at least 0.1 seconds")
        if not max(1.0, 2 * self.look_s) <= self.lease_s < inf:
            raise InvalidInputError(
                f"rollouts.lease_s is {self.lease_s}, expected at least 1 second and twice rollouts.look_s, {self.look_s:g}"
            )
        for name, address in [*(("replicas", each) for each in self.replicas), ("prometheus", self.prometheus)]:
            if address is None:
                continue
            parts = urlsplit(address)
            if parts.scheme not in ("http", "https") or not parts.netloc:
                raise InvalidInputError(
                    f"rollouts.{name} has {address!r}, expected an address such as http://host:8002"
                )
        if self.replicas and self.prometheus:
            raise InvalidInputError(
                "rollouts has both replicas and prometheus, expected one: requests would count twice"
            )
