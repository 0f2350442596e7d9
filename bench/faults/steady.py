"""Full load on one model, second by second on new connections: what callers meet while something else goes wrong.

A closed loop in a process of its own sends it. Connections are made anew each second, as callers do that lost theirs.
"""

import threading
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import numpy as np

from bench import inference
from bench.load.generator import LoadError
from bench.load.plan import LoadPlan
from bench.load.process import LoadProcess
from bench.results import percentile

_ROUND_S: Final = 1.0
_PAUSE_S: Final = 0.1
_NO_CONNECTION: Final = "no connection"


@dataclass(slots=True)
class Felt:
    """What the callers felt.

    Attributes:
        calls: sent, or not sent since there was no connection: one per round then.
        failures: calls without an answer, by reason.
        late: calls answered after the limit.
        p99s_s: of each round.
    """

    calls: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    late: int = 0
    p99s_s: list[float] = field(default_factory=list)
    slowest_s: float = 0.0

    @property
    def failed(self) -> int:
        """Calls without an answer."""
        return sum(self.failures.values())

    @property
    def note(self) -> str:
        """The calls and the reasons in one line."""
        reasons = "; ".join(f"{count} × {reason}" for reason, count in self.failures.most_common(3))
        return f"of {self.calls:,} calls, slowest {self.slowest_s:.2f} s{'; ' * bool(reasons)}{reasons}"


class SteadyLoad:
    """Load from entering to leaving the context; `felt` is complete after that.

    Args:
        address: of gRPC.
        messages: serialized requests, sent in turn.
        late_s: answers that take longer are late.
        grace_s: calls that take longer have failed.
    """

    def __init__(
        self,
        address: str,
        messages: tuple[bytes, ...],
        *,
        late_s: float,
        grace_s: float = 5.0,
        connections: int = 4,
        streams: int = 8,
    ) -> None:
        self.felt = Felt()
        self._late_s = late_s
        self._plan = LoadPlan(
            address,
            inference.METHOD,
            messages,
            connections=connections,
            streams=streams,
            duration_s=_ROUND_S,
            grace_s=grace_s,
        )
        self._process = LoadProcess()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        felt = self.felt
        while not self._stop.is_set():
            try:
                self._process.start(self._plan)
                result = self._process.result()
            except LoadError:  # nobody accepts connections
                felt.calls += 1
                felt.failures[_NO_CONNECTION] += 1
                self._stop.wait(_PAUSE_S)
                continue
            felt.calls += result.attempted
            felt.failures.update(result.failures)
            if result.latencies_s.size:
                felt.late += int(np.count_nonzero(result.latencies_s > self._late_s))
                felt.slowest_s = max(felt.slowest_s, float(result.latencies_s.max()))
                felt.p99s_s.append(percentile(result.latencies_s, 99) or 0.0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._process.close()
