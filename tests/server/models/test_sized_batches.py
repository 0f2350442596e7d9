from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock_server.models import sized_batches
from penstock_server.models.sized_batches import Feeds, Sized, SizedBatches, first_sizes, is_slow_at_changes, opened


class Device:
    """A device with a clock of its own, on which rows take 10 us, a batch 1 ms and a change of size as long as is told."""

    def __init__(self, change_s: float = 0.0, most: int = 10_000) -> None:
        self.now_s = 0.0
        self.ran: list[int] = []
        self._change_s = change_s
        self._most = most
        self._last = 0

    def clock(self) -> float:
        return self.now_s

    def run(self, rows: int) -> None:
        if rows > self._most:
            raise MemoryError
        self.now_s += 1e-3 + 1e-5 * rows + (0 if rows == self._last else self._change_s)
        self._last = rows
        self.ran.append(rows)

    def open(self) -> Callable[..., list[NDArray[Any]]]:
        def run(_: Sequence[str], feeds: Feeds) -> list[NDArray[Any]]:
            self.run(len(feeds["x"]))
            return [feeds["x"]]

        return run


def blank(rows: int) -> Feeds:
    return {"x": np.zeros((rows, 2), np.float32)}


@pytest.mark.parametrize(("change_s", "is_slow"), [(0.0, False), (1e-3, False), (2.5e-3, True), (0.06, True)])
def test_a_change_of_size_is_slow_if_it_takes_longer_than_the_batch(change_s: float, is_slow: bool) -> None:
    device = Device(change_s)
    assert is_slow_at_changes(device.run, device.clock) is is_slow


def test_sizes_end_where_larger_batches_are_no_cheaper_or_there_is_no_memory() -> None:
    def sizes(device: Device, most: int = 4096) -> list[int]:
        return list(opened(device.open, ["y"], blank, most, device.clock))

    assert sizes(Device()) == [1, 4, 16, 64, 256, 1024], "4,096 rows cost 96 % each of what they do among 1,024"
    assert sizes(Device(most=100)) == [1, 4, 16, 64]
    assert sizes(Device(), most=20) == [1, 4, 16, 64], "the size above the largest batch too"
    assert sizes(Device(), most=16) == [1, 4, 16]
    assert sizes(Device(most=1)) == [], "one session is there already"


def test_sizes_are_measured_when_they_have_been_planned() -> None:
    device = Device(change_s=0.5)
    found = opened(device.open, ["y"], blank, 4, device.clock)
    assert found[4].took_s == pytest.approx(1e-3 + 4e-5)


def test_a_size_of_seconds_is_the_last() -> None:
    device = Device()
    monotone = {1: 0.2, 4: 0.3}

    def open_run() -> Callable[..., list[NDArray[Any]]]:
        def run(_: Sequence[str], feeds: Feeds) -> list[NDArray[Any]]:
            device.now_s += monotone[len(feeds["x"])]
            return [feeds["x"]]

        return run

    assert list(opened(open_run, ["y"], blank, 4096, device.clock)) == [1, 4]


@given(
    st.dictionaries(st.sampled_from([1, 3, 4, 8]), st.integers(1, 50), min_size=1),
    st.integers(1, 12),
)
def test_pieces_together_take_the_least_time(times: dict[int, int], rows: int) -> None:
    first = first_sizes({size: float(took) for size, took in times.items()}, rows)
    left, took_s = rows, 0.0
    while left > 0:
        took_s += times[first[left]]
        left -= first[left]
    best = min(
        sum(times[size] for size in sizes)
        for count in range(1, rows + 1)
        for sizes in combinations_with_replacement(times, count)
        if sum(sizes) >= rows
    )
    assert took_s == best


@given(st.integers(1, 200), st.sampled_from([(1, 4), (4, 16), (1, 4, 16, 64)]))
def test_answers_are_those_of_the_rows_alone(rows: int, sizes: tuple[int, ...]) -> None:
    ran: list[int] = []

    def run(names: Sequence[str], feeds: Feeds) -> list[NDArray[Any]]:
        assert list(names) == ["doubled", "text"]
        assert feeds["scale"].shape == (1,), "a default is no row"
        ran.append(len(feeds["x"]))
        assert len(feeds["t"]) == ran[-1]
        return [feeds["x"] * feeds["scale"], feeds["t"]]

    batches = SizedBatches({size: Sized(run, 1e-3 + 1e-4 * size) for size in sizes}, frozenset({"x", "t"}), 64)
    x = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
    texts = np.array([f"t{at}" for at in range(rows)], object)
    doubled, got = batches(["doubled", "text"], {"x": x, "t": texts, "scale": np.array([2.0], np.float32)})
    assert np.array_equal(doubled, 2 * x)
    assert got.tolist() == texts.tolist()
    assert set(ran) <= set(sizes), "no session sees another size than its own"
    assert sum(ran) < rows + max(sizes)


def test_no_rows_are_answered_by_the_graph() -> None:
    batches = SizedBatches({4: Sized(lambda _, feeds: [feeds["x"]], 1.0)}, frozenset({"x"}), 4)
    (got,) = batches(["y"], blank(0))
    assert got.shape == (0, 2)


def test_all_sizes_are_four_times_the_last() -> None:
    assert all(4 * small == large for small, large in zip(sized_batches.SIZES, sized_batches.SIZES[1:], strict=False))
