"""The settings of a load run, checked on construction, and its result; both are passed between processes."""

import ipaddress
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """One run: unary gRPC calls to one address, bounded in count and in time.

    Attributes:
        address: HOST:PORT, where the host is a loopback address.
        path: the method, "/package.Service/Method".
        messages: serialized requests, sent in turn.
        connections: how many connections are open.
        streams: how many calls are in flight on each, at most.
        duration_s: how long is measured.
        warmup_s: how long load is sent before that.
        max_requests: the most requests sent, warm-up included.
        rate_per_s: None for a closed loop, where an answer releases the next request; else the mean rate of Poisson
            arrivals, whose latencies count from the time when each was due.
        timeout_s: the deadline sent with every call, if any.
        grace_s: how long to wait for answers after the last request; calls without an answer then have failed.
        seed: of the arrivals.
        is_tls: the connections are encrypted; the certificate is not checked.
        idle: so many more connections are open, over which nothing is sent but HTTP/2's beginning.
        headers: sent with every gRPC call.
        is_http1: the messages are bodies of HTTP/1.1 requests, one at a time per connection; `timeout_s` is not sent.
    """

    address: str
    path: str
    messages: tuple[bytes, ...]
    connections: int = 1
    streams: int = 1
    duration_s: float = 1.0
    warmup_s: float = 0.0
    max_requests: int = 5_000_000
    rate_per_s: float | None = None
    timeout_s: float | None = None
    grace_s: float = 5.0
    seed: int = 0
    is_tls: bool = False
    idle: int = 0
    is_http1: bool = False
    headers: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        endpoint(self.address)
        if not self.messages:
            raise ValueError("a load plan needs at least one message")
        for name in ("connections", "streams", "max_requests", "duration_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("warmup_s", "grace_s", "idle"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("rate_per_s", "timeout_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive or absent, got {value}")


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The result of a run; counts are of the whole run, `latencies_s` and `window_s` of the measured part.

    Attributes:
        attempted: requests sent.
        succeeded: answers with a message and grpc-status 0.
        failures: how many failed, by reason; every attempt succeeded or failed.
        window_s: how long was measured.
        latencies_s: of each success in the window.
        probed: how much the probe's value grew over the window, such as a server's CPU seconds; None without a probe.
    """

    attempted: int
    succeeded: int
    failures: dict[str, int]
    window_s: float
    latencies_s: NDArray[np.float64]
    probed: float | None = None

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return sum(self.failures.values())

    @property
    def requests_per_s(self) -> float:
        """Successes per second of the window."""
        return self.latencies_s.size / self.window_s if self.window_s > 0 else 0.0


def endpoint(address: str) -> tuple[str, int]:
    """Host and port of a loopback address.

    Raises:
        ValueError: it is malformed, or not a loopback address: load is sent to this machine only.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"an address is HOST:PORT, got {address!r}")
    host = host.removeprefix("[").removesuffix("]")
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError(f"load is sent to loopback addresses only, such as 127.0.0.1, got {host!r}")
    return host, int(port)


def split(plan: LoadPlan, processes: int) -> list[LoadPlan]:
    """Plans that share the connections, the requests and the rate between several processes."""
    if not 0 < processes <= plan.connections:
        raise ValueError(f"{plan.connections} connections cannot be shared by {processes} processes")
    shares = [plan.connections // processes + (i < plan.connections % processes) for i in range(processes)]
    return [
        replace(
            plan,
            connections=share,
            idle=plan.idle if i == 0 else 0,
            max_requests=max(1, plan.max_requests * share // plan.connections),
            rate_per_s=plan.rate_per_s and plan.rate_per_s * share / plan.connections,
            seed=plan.seed + i,
        )
        for i, share in enumerate(shares)
    ]


def merge(results: Sequence[LoadResult]) -> LoadResult:
    """One result of runs that ran at the same time.

    The window is the mean of theirs. All probes watch the same server, so the first one's value is taken.
    """
    failures = sum((Counter(result.failures) for result in results), Counter[str]())
    return LoadResult(
        attempted=sum(result.attempted for result in results),
        succeeded=sum(result.succeeded for result in results),
        failures=dict(failures),
        window_s=sum(result.window_s for result in results) / len(results),
        latencies_s=np.concatenate([result.latencies_s for result in results]),
        probed=results[0].probed,
    )
