"""The file of answers and its table of versions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock_server.labels import layout
from penstock_server.labels.prediction_file import (
    KEY,
    KIND,
    NAMED,
    PREDICTION,
    ROW,
    SCORE,
    TIME_NS,
    VERSION_ROLE,
    WEIGHT,
    AnsweredVersion,
    KeyedRows,
    PredictionWriter,
    Route,
    read_table,
    table_of,
)
from penstock_server.labels.ring import OwnRing

FRAUD = AnsweredVersion("fraud", "3", "abc", "class", ("no", "yes"))


def write(writer: PredictionWriter, requests: list[KeyedRows], rows: int, **fields: Any) -> bool:
    """Writes the records of a batch of so many rows, whose predictions are their places."""
    numbers = np.arange(float(rows))
    fields = {"routes": [NAMED] * len(requests), "time_ns": 5, "place": 0, "scores": -numbers} | fields
    return writer.write(requests, fields.pop("routes"), predictions=numbers, **fields)


def test_requests_are_written_row_by_row(tmp_path: Path) -> None:
    writer = PredictionWriter(OwnRing(tmp_path, KIND, 0, 8))
    requests = [KeyedRows(0, 2**64 - 1, 0, 2), KeyedRows(2, 7, 3, 1, first=4)]
    routes = [Route(layout.CANARY, 0.5), NAMED]
    assert write(writer, requests, 4, routes=routes, place=9)
    found = writer.own.ring.read(0, 8)
    numbers = found.view(np.float64)
    assert found[:, KEY].view(np.uint64).tolist() == [2**64 - 1] * 2 + [7]
    assert found[:, TIME_NS].tolist() == [5] * 3
    assert found[:, VERSION_ROLE].tolist() == [9 | 1 << 32] * 2 + [9 | 3 << 32]
    assert found[:, ROW].tolist() == [0, 1, 4]
    assert numbers[:, [PREDICTION, SCORE]].tolist() == [[0.0, 0.0], [1.0, -1.0], [3.0, -3.0]]
    assert numbers[:, WEIGHT].tolist()[:2] == [0.5, 0.5]
    assert np.isnan(numbers[2, WEIGHT])


@pytest.mark.parametrize(
    ("request_rows", "first", "predicted", "expected"),
    [
        (300, 0, 300, 256),
        (300, 200, 300, 56),
        (300, 256, 300, 0),
        (300, 400, 300, 0),
        (3, 0, 1, 1),  # one answer for all rows of a request that ran alone
        (3, 0, 0, 0),
    ],
)
def test_a_request_has_so_many_records_at_most(
    tmp_path: Path, request_rows: int, first: int, predicted: int, expected: int
) -> None:
    writer = PredictionWriter(OwnRing(tmp_path, KIND, 0, 512))
    assert write(writer, [KeyedRows(0, 1, 0, request_rows, first)], predicted)
    found = writer.own.ring.read(0, 512)
    assert found[:, ROW].tolist() == list(range(first, first + expected))
    assert write(writer, [], 0)


def test_without_room_a_batch_is_counted_as_lost(tmp_path: Path) -> None:
    writer = PredictionWriter(OwnRing(tmp_path, KIND, 0, 3))
    assert write(writer, [KeyedRows(0, 1, 0, 2)], 2)
    assert not write(writer, [KeyedRows(0, 2, 0, 2)], 2)
    assert writer.own.ring.lost == 2
    writer.own.ring.release(2)
    assert write(writer, [KeyedRows(0, 3, 0, 2)], 2)
    assert writer.own.ring.read(2, 3)[:, KEY].tolist() == [3, 3]


def test_a_place_counts_once_it_stands_in_the_table(tmp_path: Path) -> None:
    folder = tmp_path / "labels"
    writer = PredictionWriter(OwnRing(folder, KIND, 0, 8))
    table_of(writer.own.ring.path).mkdir()  # so that it cannot be written
    with pytest.raises(OSError, match="directory"):
        writer.place_of(FRAUD)
    table_of(writer.own.ring.path).rmdir()
    assert writer.place_of(FRAUD) == 0
    assert read_table(writer.own.ring.path) == (FRAUD,)


def test_places_in_the_table_hold_for_the_next_writer(tmp_path: Path) -> None:
    own = OwnRing(tmp_path, KIND, 0, 8)
    writer = PredictionWriter(own)
    places = [writer.place_of(FRAUD), writer.place_of(AnsweredVersion("fares", "1", kind="number"))]
    own.close()
    again = OwnRing(tmp_path, KIND, 0, 8)
    assert PredictionWriter(again).place_of(FRAUD) == places[0]
    assert [read_table(again.ring.path)[place].model for place in places] == ["fraud", "fares"]
    assert read_table(tmp_path / "predictions-9.ring") == ()
