"""Files of records: what one process writes the other finds whole, once and in order."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock_server.labels.ring import LOST, NUMBER, WRITTEN, OwnRing, Ring, create, rings_in


def records(first: int, count: int) -> NDArray[np.int64]:
    made = np.zeros((count, 8), np.int64)
    made[:, 0] = np.arange(first, first + count)
    return made


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_what_is_written_is_taken_once_in_order_and_never_written_over(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[int, int]]
) -> None:
    path = tmp_path_factory.mktemp("ring") / "labels-0.ring"
    create(path, 16)
    writer, reader = Ring(path), Ring(path)
    written = taken = 0
    for size, most in turns:
        fits = written + size - taken <= 16
        assert writer.append(records(written, size)) == fits
        written += size if fits else 0
        found = reader.read(taken, most)
        assert found[:, 0].tolist() == list(range(taken, min(written, taken + most)))
        taken += len(found)
        reader.release(taken)


def test_half_a_record_is_not_taken(tmp_path: Path) -> None:
    create(tmp_path / "labels-0.ring", 4)
    ring = Ring(tmp_path / "labels-0.ring")
    ring.append(records(0, 3))
    ring.records[1, NUMBER] = 0
    assert len(ring.read(0, 4)) == 1


def test_a_new_writer_goes_on_behind_what_a_killed_one_has_written(tmp_path: Path) -> None:
    own = OwnRing(tmp_path, "labels", 0, 4)
    own.ring.append(records(0, 3))
    own.ring.words[WRITTEN] = 2  # it was killed before it could say so
    own.close()
    again = OwnRing(tmp_path, "labels", 0, 4)
    assert again.ring.written == 3
    assert again.ring.append(records(3, 1))
    assert again.ring.read(0, 4)[:, 0].tolist() == [0, 1, 2, 3]
    assert not again.ring.append(records(4, 1))


def test_two_writers_of_a_slot_have_two_files(tmp_path: Path) -> None:
    first, second = (OwnRing(tmp_path, "labels", 3, 4) for _ in range(2))
    assert first.ring.path != second.ring.path
    assert rings_in(tmp_path, "labels") == sorted([first.ring.path, second.ring.path])
    assert rings_in(tmp_path, "predictions") == []


def test_a_file_that_is_none_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "labels-0.ring").write_bytes(b"half")
    own = OwnRing(tmp_path, "labels", 0, 4)
    assert own.ring.append(records(0, 4))
    assert own.ring.words[LOST] == own.ring.lost == 0
