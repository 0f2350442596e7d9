"""Simulated hours of a champion and a canary: thirteen in which both are equally good, and twelve with a fault.

A minute is a look. The canary gets 5 % of the requests for twenty minutes, then 25 %, then 50 %. Unless a world says
otherwise, there are 100 requests a second, of which 0.5 % fail, and latencies are log-normal with a median of 85 ms and a
99th percentile of 272 ms. Judges see what monitoring would show them: counts per version and minute.
"""

import mmap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from penstock_server.metrics.counters import LATENCY_EDGES_S, MOST_OF_A_KEY, NTH_FAILURE
from penstock_server.metrics.failed_keys import TABLE_BYTES, FailedKeys

MINUTES: Final = 60
RAMP: Final = np.repeat([0.05, 0.25, 0.5], MINUTES // 3)
PER_MINUTE: Final = 6000
FAILING: Final = 0.005
LABELS: Final = 600
"""Labelled pairs of answers a minute, where a shadow is compared."""
EDGES_MS: Final = 1000 * np.asarray(LATENCY_EDGES_S)
_MEDIAN_MS: Final = 85.0
_SIGMA: Final = 0.5
_CHAMPION, _CANARY = 0, 1

Counts = NDArray[np.int64]
Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """What judges see of many rollouts of the same kind; sides are champion and canary.

    Attributes:
        shares: [minutes] the canary's design probability.
        requests: [sides, runs, minutes].
        errors: [sides, runs, minutes].
        errors_by_key: [3, sides, runs, minutes] errors that are their key's first in the rollout, those that are its fourth,
            and all but what a key has had beyond 32, as the server counts them; None without keys.
        latency: [sides, runs, minutes, cells] requests between the server's edges of latency.
        latency_before: [cells] the champion's, in the hour before.
        errors_before: [runs, minutes] the champion's, in the hour before.
        pairs: [runs, minutes, 3] labelled pairs that only the shadow got right, only the champion, both or neither; or None.
    """

    shares: Reals
    requests: Counts
    errors: Counts
    latency: Counts
    latency_before: Counts
    errors_before: Counts
    errors_by_key: Counts | None = None
    pairs: Counts | None = None


@dataclass(frozen=True, slots=True)
class World:
    """One kind of hour.

    Attributes:
        name, text: for people.
        simulate: gives what is seen of so many runs.
        faulty: [minutes] whether the canary has a fault; never in a world without one.
    """

    name: str
    text: str
    simulate: Callable[[np.random.Generator, int], Seen]
    faulty: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(MINUTES, np.bool_))

    @property
    def has_fault(self) -> bool:
        return bool(self.faulty.any())

    @property
    def has_canary(self) -> bool:
        """Whether the version answers requests, so that all judges can see it."""
        return not isinstance(self.simulate, Shadow)

    @property
    def is_repeating(self) -> bool:
        """Whether some keys fail over and over without a fault: errors are not what the router draws then."""
        keyed = self.simulate
        return isinstance(keyed, Keyed) and (keyed.retries > 0 or keyed.failing_keys < 1 or keyed.broken > 0)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests that are independent of each other, each drawn for the canary anew.

    Attributes:
        requests: a minute; a number or [minutes], as all of these.
        failing: the share of requests that fail.
        worse: by how much more the canary's do.
        scale: of both versions' latencies; also [runs, minutes].
        slower: of the canary's.
        tail: the share of the canary's requests that take five times as long.
        heavy: whether the slowest tenth has a Pareto tail, of index 1.5.
    """

    requests: Any = PER_MINUTE
    failing: Any = FAILING
    worse: Any = 1.0
    scale: Any = 1.0
    slower: float = 1.0
    tail: float = 0.0
    heavy: bool = False

    def __call__(self, rng: np.random.Generator, runs: int) -> Seen:
        total = rng.poisson(np.broadcast_to(self.requests, (runs, MINUTES)))
        canary = rng.binomial(total, RAMP)
        requests = np.stack([total - canary, canary])
        chance = np.broadcast_to(self.failing, (runs, MINUTES))
        errors = rng.binomial(requests, np.minimum(1.0, np.stack([chance, chance * self.worse])))
        errors_before = rng.poisson(np.broadcast_to(self.requests * chance[:, :1], (runs, MINUTES)))
        return Seen(RAMP, requests, errors, self.latency(rng, requests), self.latency_before(rng), errors_before)

    def latency(self, rng: np.random.Generator, requests: Counts) -> Counts:
        """The cells of so many requests."""
        sides = [rng.multinomial(requests[side], self.cells(side)) for side in (_CHAMPION, _CANARY)]
        return np.stack(sides)

    def latency_before(self, rng: np.random.Generator) -> Counts:
        """The champion's hour before, at the usual scale."""
        return rng.multinomial(MINUTES * PER_MINUTE, Traffic(heavy=self.heavy).cells(_CHAMPION)[0])

    def cells(self, side: int) -> Reals:
        """The probability of each cell: [minutes, cells] or [runs, minutes, cells]."""
        scale = np.broadcast_to(np.asarray(self.scale, np.float64), np.shape(self.scale) or (MINUTES,))
        scale = scale * (self.slower if side == _CANARY else 1.0)
        below = self._below(EDGES_MS / scale[..., None])
        if side == _CANARY and self.tail:
            below = (1 - self.tail) * below + self.tail * self._below(EDGES_MS / (5 * scale[..., None]))
        ends = np.zeros((*below.shape[:-1], 1))
        return np.diff(below, prepend=ends, append=ends + 1.0)

    def _below(self, latency_ms: Reals) -> Reals:
        usual = ndtr(np.log(latency_ms / _MEDIAN_MS) / _SIGMA)
        if not self.heavy:
            return usual
        at = _MEDIAN_MS * np.exp(_SIGMA * 1.2815515655446004)
        return np.where(latency_ms < at, usual, 1 - 0.1 * (at / np.maximum(latency_ms, at)) ** 1.5)


@dataclass(frozen=True, slots=True)
class Keyed:
    """Requests with keys: the key is drawn for the canary, once, and keeps its side while the weight rises.

    Attributes:
        keys: how many there are.
        uneven: the standard deviation of the logarithm of how much a key asks.
        failing_keys: the share of keys that make nine tenths of the errors, for both versions alike.
        retries: how often a failed request is sent again at once, to fail again.
        affected: the share of keys whose every request the canary fails.
        broken: how many requests of one key more fail, from some minute on.
        worse: by how much more the canary's requests fail.
    """

    keys: int = 5000
    uneven: float = 1.0
    failing_keys: float = 1.0
    retries: int = 0
    affected: float = 0.0
    broken: int = 0
    worse: float = 1.0

    def __call__(self, rng: np.random.Generator, runs: int) -> Seen:
        requests, errors = np.zeros((2, 2, runs, MINUTES), np.int64)
        by_key, before = np.zeros((3, 2, runs, MINUTES), np.int64), np.zeros((runs, MINUTES), np.int64)
        for run in range(runs):
            requests[:, run], errors[:, run], by_key[:, :, run], before[run] = self._run(rng)
        usual = Traffic()
        return Seen(RAMP, requests, errors, usual.latency(rng, requests), usual.latency_before(rng), before, by_key)

    def _run(self, rng: np.random.Generator) -> tuple[Counts, Counts, Counts, Counts]:
        """Requests and errors of [sides, minutes], those by key of [3, sides, minutes], errors before of [minutes]."""
        place, together = rng.random(self.keys), 1 + self.retries
        asks = np.exp(self.uneven * rng.standard_normal(self.keys))
        asks /= asks.sum()
        prone = asks * np.where(rng.random(self.keys) < self.failing_keys, 1.0, 0.1 * self.failing_keys)
        failures = PER_MINUTE * MINUTES * FAILING / together
        _, before = self._events(rng, failures, prone)
        key, minute = self._events(rng, failures * self.worse, prone)
        if self.worse > 1:
            kept = (place[key] < RAMP[minute]) | (rng.random(len(key)) * self.worse < 1)
            key, minute = key[kept], minute[kept]
        if self.affected:
            hit = asks * (rng.random(self.keys) < self.affected)
            more, when = self._events(rng, PER_MINUTE * MINUTES * float(hit.sum()), hit)
            on_canary = place[more] < RAMP[when]
            key, minute = np.concatenate([key, more[on_canary]]), np.concatenate([minute, when[on_canary]])
        if self.broken:
            start = rng.integers(0, MINUTES)
            key = np.concatenate([key, np.full(self.broken, rng.integers(0, self.keys))])
            minute = np.concatenate([minute, rng.integers(start, MINUTES, self.broken)])
        order = np.argsort(minute, kind="stable")
        key, minute = (np.repeat(each[order], together) for each in (key, minute))
        on_canary, nth = place[key] < RAMP[minute], _counted(key)
        chosen = (np.ones(len(key), np.bool_), nth == 1, nth == NTH_FAILURE, nth <= MOST_OF_A_KEY)
        errors, *by_key = (
            np.stack([np.bincount(minute[one & (on_canary == side)], minlength=MINUTES) for side in (False, True)])
            for one in chosen
        )
        served = np.array([asks[place < share].sum() for share in RAMP])
        requests = np.maximum(rng.poisson(PER_MINUTE * np.stack([1 - served, served])), errors)
        return requests, errors, np.stack(by_key), together * np.bincount(before, minlength=MINUTES)

    def _events(self, rng: np.random.Generator, mean: float, weights: Reals) -> tuple[Counts, Counts]:
        count = rng.poisson(mean)
        return rng.choice(self.keys, count, p=weights / weights.sum()), rng.integers(0, MINUTES, count)


def _counted(key: Counts) -> Counts:
    """How many failures a key has had with each of these, in order, as the server counts them."""
    table = FailedKeys(mmap.mmap(-1, TABLE_BYTES), 1)
    return np.array([table.count(str(each)) for each in key.tolist()], np.int64)


@dataclass(frozen=True, slots=True)
class Shadow:
    """A shadow that is compared with the champion on labelled answers, and serves nothing.

    Attributes:
        better: the share of answers that only the shadow gets right.
        worse: the share that only the champion gets right.
    """

    better: float
    worse: float

    def __call__(self, rng: np.random.Generator, runs: int) -> Seen:
        pairs = rng.multinomial(LABELS, [self.better, self.worse, 1 - self.better - self.worse], size=(runs, MINUTES))
        nothing = np.zeros((2, runs, MINUTES), np.int64)
        usual = Traffic()
        latency = np.zeros((*nothing.shape, len(EDGES_MS) + 1), np.int64)
        return Seen(np.zeros(MINUTES), nothing, nothing, latency, usual.latency_before(rng), nothing[0], pairs=pairs)


_MINUTE: Final = np.arange(MINUTES)
_ALWAYS: Final = np.ones(MINUTES, np.bool_)
_WAVE: Final = 2 ** np.sin(2 * np.pi * _MINUTE / MINUTES)


def _wandering(rng: np.random.Generator, runs: int) -> Seen:
    """Latencies of both versions that wander by a fifth, with a memory of ten minutes."""
    steps = rng.standard_normal((runs, MINUTES))
    log_scale = np.zeros((runs, MINUTES))
    for at in range(1, MINUTES):
        log_scale[:, at] = 0.9 * log_scale[:, at - 1] + 0.2 * np.sqrt(1 - 0.81) * steps[:, at]
    return Traffic(scale=np.exp(log_scale))(rng, runs)


def _incidents(rng: np.random.Generator, runs: int) -> Seen:
    """One minute in twenty in which a tenth of all requests fails, whichever version answers."""
    is_hit = rng.random((runs, MINUTES)) < 0.05
    return Traffic(failing=np.where(is_hit, 0.1, FAILING))(rng, runs)


def _rising(start: float, end: float) -> Reals:
    return np.geomspace(start, end, MINUTES)


WORLDS: Final = (
    World("steady", "nothing changes", Traffic()),
    World("errors rise", "from 0.2 to 2 % for both", Traffic(failing=_rising(0.002, 0.02))),
    World("errors fall", "from 2 to 0.2 % for both", Traffic(failing=_rising(0.02, 0.002))),
    World("a day's cycle", "requests and errors double and halve", Traffic(PER_MINUTE * _WAVE, FAILING * _WAVE)),
    World("incidents", "a tenth of all requests fails in one minute of twenty", _incidents),
    World("little traffic", "2 requests a second", Traffic(requests=120)),
    World("wandering latency", "both versions' latencies wander by a fifth", _wandering),
    World("heavy tails", "the slowest tenth has a Pareto tail", Traffic(heavy=True)),
    World("sticky users", "5,000 users, some of whom ask far more than others", Keyed()),
    World("retries", "a failed request is sent five times more, with its key", Keyed(keys=20_000, retries=5)),
    World("failing users", "1 % of 5,000 users make nine tenths of the errors", Keyed(failing_keys=0.01)),
    World("broken client", "one of 5,000 users fails 2,000 times more, from some minute on", Keyed(broken=2000)),
    World("equal shadow", "2 % of answers only right here, 2 % only there", Shadow(0.02, 0.02)),
    World("errors x 1.5", "half as many errors again", Traffic(worse=1.5), _ALWAYS),
    World("errors x 2", "twice the errors", Traffic(worse=2.0), _ALWAYS),
    World("errors x 5", "five times the errors", Traffic(worse=5.0), _ALWAYS),
    World("p99 x 2", "3 % of requests take five times as long", Traffic(tail=0.03), _ALWAYS),
    World("10 % slower", "all requests", Traffic(slower=1.1), _ALWAYS),
    World("users' errors x 2", "twice the errors, of 5,000 users", Keyed(worse=2.0), _ALWAYS),
    World("few users", "twice the errors, of 300 users, of whom most fail anyway", Keyed(keys=300, worse=2.0), _ALWAYS),
    World("some users", "every request of 2 % of the users fails", Keyed(affected=0.02), _ALWAYS),
    World("later", "three times the errors, from minute 30 on", Traffic(worse=np.where(_MINUTE < 30, 1.0, 3.0)), _MINUTE
    >= 30), World("leak", "errors grow from once to four times as many", Traffic(worse=np.linspace(1, 4, MINUTES)),
    _ALWAYS), World("one segment", "a tenth of the requests fails ten times as often", Traffic(worse=1.9), _ALWAYS),
    World("shadow 1 point worse", "3 % only the champion gets right, 2 % only it", Shadow(0.02, 0.03), _ALWAYS),
)  # fmt: skip
