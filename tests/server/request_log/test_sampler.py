from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.tensors import from_raw
from penstock_server.prediction.encode import encoded_id
from penstock_server.request_log import sampler as request_log
from penstock_server.request_log.sampler import RequestTap, id_text
from penstock_server.request_log.segment import LoggedRequest, LoggedTensor, SegmentHeader

HEADER = SegmentHeader("m", "1", (LoggedTensor(("x",), "FP64"),), (LoggedTensor(("y",), "FP32"),))


@dataclass
class Taken:
    blocks: tuple[bytes, ...]
    shapes: tuple[tuple[int, ...], ...] | None = None


@dataclass(eq=False)
class Item:
    """A request as an executor holds it."""

    rows: int
    taken: Taken
    id_field: bytes = b""


@dataclass
class Report:
    """What the tap and its thread count."""

    logged: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def request_logged(self, rows: int) -> None:
        self.logged += rows

    def request_log_dropped(self, reason: str, rows: int) -> None:
        self.dropped[reason] += rows


def item(value: float, rows: int = 1, name: str = "") -> Item:
    return Item(rows, Taken((np.full(rows, value).tobytes(),)), encoded_id(name))


def tap_of(ratio: float = 1.0, **others: Any) -> RequestTap:
    return RequestTap(HEADER, sample_ratio=ratio, **{"report": Report(), "wake": lambda: None, **others})


def taken(tap: RequestTap) -> list[LoggedRequest]:
    found = []
    while (kept := tap.take()) is not None:
        found.append(kept.request())
    return found


def test_each_request_gets_its_own_rows() -> None:
    tap = tap_of(clock=lambda: 1000.5)
    tap.role = "canary"
    items = [item(1.0, 2, "a"), item(2.0, 0), item(3.0, 1, "é" * 100)]
    answers = np.arange(3, dtype=np.float32)
    tap.offer(items, items, [answers])
    answers[:] = -1  # the executor may use its memory again
    assert taken(tap) == [
        LoggedRequest(
            1000.5, "a", "canary", 2, (np.full(2, 1.0).tobytes(),), (np.array([0, 1], np.float32).tobytes(),)
        ),
        LoggedRequest(1000.5, "", "canary", 0, (b"",), (b"",)),
        LoggedRequest(1000.5, "é" * 100, "canary", 1, (np.full(1, 3.0).tobytes(),), (np.float32(2).tobytes(),)),
    ]
    assert tap.take() is None


def test_who_left_is_not_logged() -> None:
    tap = tap_of()
    items = [item(float(value), name=str(value)) for value in range(4)]
    tap.offer(items, [items[0], items[3]], [np.arange(4.0)])
    assert [(one.request_id, from_raw(one.outputs[0], "FP64", [1])[0]) for one in taken(tap)] == [
        ("0", 0.0),
        ("3", 3.0),
    ]


def test_a_request_that_ran_alone_is_one_row_whatever_its_shape() -> None:
    tap = tap_of()
    alone = Item(5, Taken((bytes(40),), ((5, 1),)))
    tap.offer([alone], [alone], [np.arange(7, dtype=np.int64)])
    (found,) = taken(tap)
    assert (found.rows, len(found.inputs[0]), len(found.outputs[0])) == (1, 40, 56)


def test_strings_are_logged_as_they_travel() -> None:
    tap = tap_of()
    one = item(1.0)
    tap.offer([one], [one], [np.array([b"yes"], object)])
    assert taken(tap)[0].outputs == (b"\x03\0\0\0yes",)


@given(
    ratio=st.floats(0.02, 0.6), sizes=st.lists(st.integers(1, 40), min_size=200, max_size=300), seed=st.integers(0, 99)
)
def test_the_ratio_is_kept_whatever_the_batches(ratio: float, sizes: list[int], seed: int) -> None:
    tap = tap_of(ratio, fraction=np.random.default_rng(seed).random)
    for size in sizes:
        items = [item(0.0)] * size
        tap.offer(items, items, [np.zeros(size)])
    requests = sum(sizes)
    kept = len(taken(tap))
    assert abs(kept - ratio * requests) <= 6 * (requests * ratio * (1 - ratio)) ** 0.5 + 1


def test_a_batch_of_which_nothing_is_kept_wakes_nobody() -> None:
    woken: list[int] = []
    tap = tap_of(0.5, fraction=lambda: 0.96, wake=lambda: woken.append(1))  # passes 4, keeps the fifth, and so on
    one = item(0.0)
    for kept in [0, 0, 0, 0, 1, 1, 1, 1, 1, 2]:
        tap.offer([one], [one], [np.zeros(1)])
        assert len(woken) == kept
    assert len(taken(tap)) == 2


def test_a_full_queue_drops_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_log, "QUEUE_BYTES", 2 * (request_log.REQUEST_BYTES + 24 + 24))
    report = Report()
    tap = tap_of(report=report)
    items = [item(1.0, 3) for _ in range(4)]
    tap.offer(items, items, [np.zeros(12)])
    assert (len(taken(tap)), report.dropped) == (2, {"busy": 6})
    tap.offer(items[:2], items[:2], [np.zeros(6)])
    assert (len(taken(tap)), report.dropped) == (2, {"busy": 6})


@given(text=st.text(max_size=300).filter(lambda text: text.isprintable()))
def test_ids_are_read_back(text: str) -> None:
    assert id_text(encoded_id(text)) == text
