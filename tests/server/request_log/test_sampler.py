from collections import Counter
from dataclasses import dataclass, field
from math import nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.prediction.encode import encoded_id
from penstock_server.request_log import sampler as sampler_module
from penstock_server.request_log.sampler import RequestSampler, id_text
from penstock_server.request_log.segment import LoggedRequest, LoggedTensor, SegmentHeader

HEADER = SegmentHeader("m", "1", (LoggedTensor(("x",), "FP64"),), (LoggedTensor(("y",), "FP32"),))


@dataclass
class Report:
    """What the sampler and its writer count."""

    logged: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def request_logged(self, rows: int) -> None:
        self.logged += rows

    def request_log_dropped(self, reason: str, rows: int) -> None:
        self.dropped[reason] += rows


def sampler_of(ratio: float = 1.0, **others: Any) -> RequestSampler:
    return RequestSampler(HEADER, sample_ratio=ratio, **{"report": Report(), "wake": lambda: None, **others})


def keep(sampler: RequestSampler, rows: int = 1, outputs: Any = (), **others: Any) -> None:
    """Keeps a request of this many rows of 8 bytes."""
    given = {"id_field": b"", "blocks": (bytes(8 * rows),), "arrays": [np.asarray(outputs)], **others}
    sampler.keep(rows=rows, **given)


def taken(sampler: RequestSampler) -> list[LoggedRequest]:
    found = []
    while (request := sampler.take()) is not None:
        found.append(request.logged())
    return found


def test_a_request_is_kept_as_it_was_answered() -> None:
    sampler = sampler_of(clock=lambda: 1000.5)
    sampler.role = "canary"
    answers = np.arange(2, dtype=np.float32)
    keep(sampler, 2, answers, id_field=encoded_id("é" * 100))
    keep(sampler, 0, answers[:0])
    answers[:] = -1  # the executor may use its memory again
    assert taken(sampler) == [
        LoggedRequest(1000.5, "é" * 100, "canary", 2, (bytes(16),), (np.array([0, 1], np.float32).tobytes(),)),
        LoggedRequest(1000.5, "", "canary", 0, (b"",), (b"",)),
    ]
    assert sampler.take() is None


def test_a_request_that_ran_alone_is_one_row_whatever_its_shape() -> None:
    sampler = sampler_of()
    keep(sampler, 5, np.arange(7, dtype=np.int64), is_whole=True)
    (found,) = taken(sampler)
    assert (found.rows, len(found.inputs[0]), len(found.outputs[0])) == (1, 40, 56)


def test_the_weight_is_that_of_a_request_that_was_drawn() -> None:
    sampler = sampler_of()
    for weight in (0.25, nan):
        keep(sampler, 1, np.zeros(1), weight=weight)
    assert [found.weight for found in taken(sampler)] == [0.25, None]


def test_strings_are_logged_as_they_travel() -> None:
    sampler = sampler_of()
    keep(sampler, 1, np.array([b"yes"], object))
    assert taken(sampler)[0].outputs == (b"\x03\0\0\0yes",)


@given(
    ratio=st.floats(0.02, 0.6), sizes=st.lists(st.integers(1, 40), min_size=200, max_size=300), seed=st.integers(0, 99)
)
def test_the_ratio_is_kept_whatever_the_batches(ratio: float, sizes: list[int], seed: int) -> None:
    sampler = sampler_of(ratio, fraction=np.random.default_rng(seed).random)
    places = [sampler.draw(size) for size in sizes]
    assert all(list(drawn) == sorted({*drawn} & {*range(size)}) for drawn, size in zip(places, sizes, strict=True))
    requests = sum(sizes)
    kept = sum(map(len, places))
    assert abs(kept - ratio * requests) <= 6 * (requests * ratio * (1 - ratio)) ** 0.5 + 1


@given(sizes=st.lists(st.integers(0, 40), max_size=30), seed=st.integers(0, 99))
def test_what_is_drawn_does_not_depend_on_the_batches(sizes: list[int], seed: int) -> None:
    def drawn(sizes: list[int]) -> list[int]:
        sampler = sampler_of(0.3, fraction=np.random.default_rng(seed).random)
        starts = [sum(sizes[:at]) for at in range(len(sizes))]
        return [start + at for start, size in zip(starts, sizes, strict=True) for at in sampler.draw(size)]

    assert drawn(sizes) == drawn([sum(sizes)])


def test_a_ratio_of_one_keeps_everything() -> None:
    sampler = sampler_of()
    assert [list(sampler.draw(size)) for size in (3, 0, 1)] == [[0, 1, 2], [], [0]]


def test_only_what_is_kept_wakes_the_writer() -> None:
    woken: list[int] = []
    sampler = sampler_of(0.5, fraction=lambda: 0.96, wake=lambda: woken.append(1))
    # It passes 4 requests, keeps the fifth, and so on.
    assert [list(sampler.draw(1)) for _ in range(10)] == ([[]] * 4 + [[0]]) * 2
    assert woken == []
    keep(sampler)
    assert woken == [1]


def test_a_full_queue_drops_and_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler_module, "QUEUE_BYTES", 2 * (sampler_module.REQUEST_BYTES + 24 + 24))
    report = Report()
    sampler = sampler_of(report=report)
    for _ in range(4):
        keep(sampler, 3, np.zeros(3))
    assert (len(taken(sampler)), report.dropped) == (2, {"busy": 6})
    for _ in range(2):
        keep(sampler, 3, np.zeros(3))
    assert (len(taken(sampler)), report.dropped) == (2, {"busy": 6})


@given(text=st.text(max_size=300).filter(lambda text: text.isprintable()))
def test_ids_are_read_back(text: str) -> None:
    assert id_text(encoded_id(text)) == text
