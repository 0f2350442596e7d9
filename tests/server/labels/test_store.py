"""Kept answers are found by their keys, in bounded space, also after a process was killed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock_server.labels.segment import INDEX, ROW, ROW_BYTES, Segment
from penstock_server.labels.store import LabelStore, Place

MIB = 1024**2


def rows(keys: Any, *, time_ns: int = 0) -> NDArray[Any]:
    made = np.zeros(len(keys), ROW)
    made["key"] = keys
    made["time_ns"] = time_ns
    made["prediction"] = np.arange(len(keys))
    return made


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 12), max_size=12), max_size=12),
    st.integers(1, 20),
    st.lists(st.integers(0, 14), unique=True, max_size=10),
)
def test_all_rows_of_a_key_are_found(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int]], capacity: int, asked: list[int]
) -> None:
    store = LabelStore(tmp_path_factory.mktemp("store"), 16 * MIB)
    store.capacity = capacity
    for batch in batches:
        store.append(rows(batch))
    every = [key for batch in batches for key in batch]
    found = store.find(np.array(asked, np.uint64))
    expected = sorted(key for key in every if key in asked)
    assert sorted(found.rows["key"].tolist()) == expected
    assert [asked[which] for which in found.which] == found.rows["key"].tolist()
    assert len(set(found.places.tolist())) == len(found.places)
    assert store.rows == len(every)
    again = LabelStore(store._folder, 16 * MIB, store.state)
    assert sorted(again.find(np.array(asked, np.uint64)).rows["key"].tolist()) == expected


def test_rows_that_no_state_has_are_forgotten(tmp_path: Path) -> None:
    store = LabelStore(tmp_path, 16 * MIB)
    store.capacity = 4
    store.append(rows([1, 2]))
    state = store.state
    store.append(rows([3, 4, 5, 6]))
    again = LabelStore(tmp_path, 16 * MIB, state)
    assert again.rows == 2
    assert len(again.find(np.array([3, 5], np.uint64)).which) == 0
    again.append(rows([7]))
    assert again.find(np.array([7], np.uint64)).rows["label_step"].tolist() == [0]


def test_labels_of_a_step_that_did_not_end_are_taken_back(tmp_path: Path) -> None:
    store = LabelStore(tmp_path, 16 * MIB)
    store.append(rows([1, 2]))
    found = store.find(np.array([1, 2], np.uint64))
    store.write(found.places[:1], "label_step", 5)
    store.write(found.places[1:], "label_step", 6)
    again = LabelStore(tmp_path, 16 * MIB, store.state, unsure=[store.segments[0].number], step=5)
    assert sorted(again.find(np.array([1, 2], np.uint64)).rows["label_step"].tolist()) == [0, 5]


def test_the_oldest_go_when_there_is_no_room_and_files_only_after_the_state_says_so(tmp_path: Path) -> None:
    store = LabelStore(tmp_path, 16 * MIB)
    for turn in range(40):
        store.append(rows(np.arange(store.capacity), time_ns=turn))
        store.shed(0)
        store.sweep()
        on_disk = sum(path.stat().st_blocks * 512 for path in tmp_path.iterdir())
        assert store.size_bytes <= 16 * MIB
        assert on_disk <= 16 * MIB
    assert store.rows >= 14 * store.capacity
    assert store.oldest_ns is not None
    assert store.oldest_ns > 20
    kept = len(list(tmp_path.iterdir()))
    store.shed(38)
    assert len(list(tmp_path.iterdir())) == kept
    store.sweep()
    assert store.oldest_ns == 38
    assert len(list(tmp_path.iterdir())) < kept


def test_rows_from_a_place_on_are_slices(tmp_path: Path) -> None:
    store = LabelStore(tmp_path, 16 * MIB)
    store.capacity = 3
    store.append(rows(range(8)))
    first = store.segments[0].number
    found = store.between(Place(first, 2), 4)
    assert [part["key"].tolist() for _, part in found] == [[2], [3, 4, 5]]
    assert store.between(store.end, 10)[0][1].tolist() == []


def test_an_index_that_is_lost_or_half_is_made_again(tmp_path: Path) -> None:
    segment = Segment(tmp_path, 1, 4)
    segment.append(rows([4, 2, 4, 1]))
    (index,) = tmp_path.glob(f"*{INDEX}")
    index.write_bytes(index.read_bytes()[:-1])
    again = Segment(tmp_path, 1, 4, 4)
    which, places = again.find(np.array([2, 4], np.uint64))
    assert sorted(zip(which.tolist(), places.tolist(), strict=True)) == [(0, 1), (1, 0), (1, 2)]
    assert index.stat().st_size == 48


def test_what_a_row_takes_is_what_is_said() -> None:
    assert ROW_BYTES == 84
