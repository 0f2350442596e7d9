"""What a stream counts beside its versions: lag, latency from a message's time to its answer's commit, and where time goes."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from penstock.names import VersionKey
from penstock_tools.stream.answering import Part
from penstock_tools.stream.positions import Batch

LATENCY_EDGES_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
SIZE_EDGES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)


class Histogram:
    """Counts values in cells.

    Args:
        edges: the upper bounds of the cells but the last.
    """

    def __init__(self, edges: tuple[float, ...]) -> None:
        self._edges = np.array(edges)
        self.cells = np.zeros(len(edges) + 1, np.int64)
        self.sum = 0.0

    def add(self, values: NDArray[np.float64]) -> None:
        """Counts values, floats [N]."""
        self.cells += np.bincount(np.searchsorted(self._edges, values, side="left"), minlength=len(self.cells))
        self.sum += float(values.sum())

    def buckets(self) -> list[tuple[str, float]]:
        """The cells as Prometheus has them: how many values are up to each bound."""
        names = [*(f"{edge:g}" for edge in self._edges), "+Inf"]
        return list(zip(names, np.cumsum(self.cells).astype(float).tolist(), strict=True))


class Meter(Collector):
    """Counts on the stream's thread, and shows it at a scrape.

    Args:
        lag: the messages that wait, by partition.
        transactions: how many were committed, and how many aborted.
        rebalances: how often partitions came or went.
        topic: that is read.
    """

    def __init__(
        self,
        *,
        lag: Callable[[], Mapping[int, int]],
        transactions: Callable[[], tuple[int, int]],
        rebalances: Callable[[], int],
        topic: str,
    ) -> None:
        self._lag = lag
        self._transactions = transactions
        self._rebalances = rebalances
        self._topic = topic
        self._messages: Counter[tuple[VersionKey, str]] = Counter()
        self._latency = Histogram(LATENCY_EDGES_S)
        self._sizes = Histogram(SIZE_EDGES)
        self._seconds = dict.fromkeys(("waiting", "answering", "committing"), 0.0)

    def waited(self, took_s: float) -> None:
        """Notes time in which messages were waited for."""
        self._seconds["waiting"] += took_s

    def worked(self, answering_s: float, committing_s: float) -> None:
        """Notes the time that a batch took."""
        self._seconds["answering"] += answering_s
        self._seconds["committing"] += committing_s

    def answered(self, key: VersionKey, part: Part) -> None:
        """Counts what became of a version's part of a batch that was committed."""
        self._messages[key, "answered"] += part.answered
        for kind, messages in part.dead.items():
            self._messages[key, kind] += messages

    def committed(self, batch: Batch, now_s: float) -> None:
        """Counts a batch that was committed at a time since 1970."""
        self._sizes.add(np.array([len(batch.messages)], np.float64))
        made = [message.timestamp_ms for message in batch.messages if message.timestamp_ms is not None]
        if made:
            # Clocks differ, and no answer comes before its message.
            self._latency.add(np.maximum(now_s - np.array(made) / 1e3, 0.0))

    def describe(self) -> list[Metric]:
        """No families: prometheus-client would otherwise scrape at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        messages = CounterMetricFamily(
            "penstock_stream_messages",
            "Messages whose outcome was committed: answered, or a dead letter because unreadable or unanswered.",
            labels=["model_name", "model_version", "outcome"],
        )
        for (key, outcome), count in sorted(self._messages.items()):
            messages.add_metric([*key, outcome], count)
        yield messages
        committed, aborted = self._transactions()
        transactions = CounterMetricFamily(
            "penstock_stream_transactions", "Transactions, committed and aborted.", labels=["outcome"]
        )
        transactions.add_metric(["committed"], committed)
        transactions.add_metric(["aborted"], aborted)
        yield transactions
        lag = GaugeMetricFamily(
            "penstock_stream_lag_messages", "Messages of a partition that wait.", labels=["topic", "partition"]
        )
        for partition, waiting in sorted(self._lag().items()):
            lag.add_metric([self._topic, str(partition)], waiting)
        yield lag
        yield HistogramMetricFamily(
            "penstock_stream_end_to_end_seconds",
            "From a message's timestamp until its answer is committed.",
            buckets=self._latency.buckets(),
            sum_value=self._latency.sum,
        )
        yield HistogramMetricFamily(
            "penstock_stream_batch_messages",
            "Messages per batch, each of which is one transaction.",
            buckets=self._sizes.buckets(),
            sum_value=self._sizes.sum,
        )
        seconds = CounterMetricFamily(
            "penstock_stream_seconds",
            "Where the stream's time goes; one that is never waiting has all it can do.",
            labels=["doing"],
        )
        for doing, spent in self._seconds.items():
            seconds.add_metric([doing], spent)
        yield seconds
        yield CounterMetricFamily(
            "penstock_stream_rebalances", "How often partitions came or went.", value=self._rebalances()
        )
