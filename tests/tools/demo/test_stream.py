import numpy as np
import pandas as pd
import pytest

from penstock_tools.demo import flights
from penstock_tools.demo.stream import batches, thinned, until


@pytest.fixture(scope="module")
def frame():
    rows = 23
    columns = {name: ["AA"] * rows for name in flights.STRINGS} | {
        name: np.arange(rows, dtype=np.float64) for name in flights.NUMBERS
    }
    return pd.DataFrame(
        columns
        | {"late": [row % 3 == 0 for row in range(rows)], "month": [4] * 10 + [5] * 13, "flight": np.arange(rows) + 100}
    )


def test_batches_hold_every_row_once_in_order(frame):
    found = list(batches(frame, 8))
    assert [len(batch.answers) for batch in found] == [8, 8, 7]
    assert np.concatenate([batch.rows["temp"] for batch in found]).tolist() == frame["temp"].tolist()
    assert np.concatenate([batch.answers for batch in found]).tolist() == frame["late"].astype(int).tolist()
    assert all(batch.rows.keys() == set(flights.COLUMNS) for batch in found)


def test_a_batch_has_the_month_and_the_key_of_its_first_row(frame):
    assert [(batch.month, batch.key) for batch in batches(frame, 8)] == [(4, "AA100"), (4, "AA108"), (5, "AA116")]


@pytest.mark.parametrize(("rows", "expected"), [(1, 1), (2, 2), (10, 10), (23, 23), (99, 23)])
def test_thinning_keeps_the_order_and_spreads_evenly(frame, rows, expected):
    kept = thinned(frame, rows)["temp"].tolist()
    assert len(set(kept)) == expected
    assert kept == sorted(kept)
    assert kept[0] == 0
    assert rows == 1 or kept[-1] == 22


@pytest.mark.parametrize(("done_after", "at_most", "repeats"), [(0, 5, 0), (3, 5, 3), (99, 5, 5), (99, 0, 0)])
def test_the_last_batch_is_repeated_until_done_but_not_for_ever(frame, done_after, at_most, repeats):
    asked = iter(range(1000))
    found = list(until(lambda: next(asked) >= done_after, batches(frame, 8), at_most=at_most))
    assert len(found) == 3 + repeats
    assert all(batch is found[2] for batch in found[3:])


def test_an_empty_stream_ends_at_once():
    assert list(until(lambda: False, [], at_most=9)) == []
