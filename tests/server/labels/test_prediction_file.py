"""The file of answers and its table of versions."""

from pathlib import Path

import numpy as np

from penstock_server.labels.prediction_file import (
    KEY,
    KIND,
    PREDICTION,
    ROW,
    SCORE,
    VERSION_ROLE,
    WEIGHT,
    AnsweredVersion,
    PredictionWriter,
    read_table,
)
from penstock_server.labels.ring import OwnRing

FRAUD = AnsweredVersion("fraud", "3", "abc", "class", ("no", "yes"))


def test_a_request_is_written_row_by_row(tmp_path: Path) -> None:
    writer = PredictionWriter(OwnRing(tmp_path, KIND, 0, 8))
    place = writer.place_of(FRAUD)
    assert writer.write(
        2**64 - 1, time_ns=5, place=place, role=2, predictions=[1.0, 0.0], scores=[0.9, 0.2], weight=0.5
    )
    found = writer.own.ring.read(0, 8)
    numbers = found.view(np.float64)
    assert found[:, KEY].view(np.uint64).tolist() == [2**64 - 1] * 2
    assert found[:, VERSION_ROLE].tolist() == [place | 2 << 32] * 2
    assert found[:, ROW].tolist() == [0, 1]
    assert numbers[:, [PREDICTION, SCORE, WEIGHT]].tolist() == [[1.0, 0.9, 0.5], [0.0, 0.2, 0.5]]


def test_without_room_a_request_is_counted_as_lost(tmp_path: Path) -> None:
    writer = PredictionWriter(OwnRing(tmp_path, KIND, 0, 3))
    assert writer.write(1, time_ns=0, place=0, role=0, predictions=[1.0] * 2)
    assert not writer.write(2, time_ns=0, place=0, role=0, predictions=[1.0] * 2)
    assert writer.own.ring.lost == 2


def test_places_in_the_table_hold_for_the_next_writer(tmp_path: Path) -> None:
    own = OwnRing(tmp_path, KIND, 0, 8)
    writer = PredictionWriter(own)
    places = [writer.place_of(FRAUD), writer.place_of(AnsweredVersion("fares", "1", kind="number"))]
    own.close()
    again = OwnRing(tmp_path, KIND, 0, 8)
    assert PredictionWriter(again).place_of(FRAUD) == places[0]
    assert [read_table(again.ring.path)[place].model for place in places] == ["fraud", "fares"]
    assert read_table(tmp_path / "predictions-9.ring") == ()
