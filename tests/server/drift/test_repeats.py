import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.drift import repeats
from penstock_server.drift.repeats import RECENT_ROWS, repeated_share

NAN = float("nan")
NOT_A_TIME = np.iinfo(np.int64).min

SHARES = [
    # columns, the share of the rows that are there again
    ([np.array([1.0, 2, 1, 3, 3, 3])], 3 / 6),
    ([np.array([1.0, 1, 2]), [b"a", b"b", b"a"]], 0.0),
    ([np.array([1.0, 1, 2]), [b"a", b"a", b"a"]], 1 / 3),
    ([np.array([NAN, -NAN, 0.0, -0.0])], 2 / 4),
    ([np.array([1.0, np.nextafter(1, 2)])], 0.0),
    ([np.array([NOT_A_TIME, 5, NOT_A_TIME])], 1 / 3),
    ([np.array([2**62, 2**62 + 1])], 0.0),
    ([[b"", b"a", b""]], 1 / 3),
    ([np.array([7.0])], 0.0),
]


@pytest.mark.parametrize(("columns", "share"), SHARES)
def test_rows_that_are_there_again_are_counted(columns: list, share: float) -> None:
    assert repeated_share(columns) == share


@pytest.mark.parametrize("columns", [[], [np.empty(0)], [[]]])
def test_of_no_rows_nothing_is_known(columns: list) -> None:
    assert repeated_share(columns) is None


@pytest.mark.parametrize(("between", "share"), [(RECENT_ROWS - 1, 1), (RECENT_ROWS, 0)])
def test_a_row_is_forgotten_after_so_many_different_ones(between: int, share: float) -> None:
    # Rows that repeat among those between do not count.
    inner = np.repeat(np.arange(1.0, between + 1), 2)
    values = np.concatenate([[0.0], inner, [0.0]])
    assert repeated_share([values]) == pytest.approx((between + share) / len(values))


ROW = st.tuples(st.sampled_from([0.0, -0.0, 1.0, NAN]), st.sampled_from([b"", b"a", b"b"]), st.integers(0, 2))


@given(st.lists(ROW, min_size=1, max_size=60), st.integers(1, 4))
def test_it_is_what_a_list_of_the_last_different_rows_says(rows: list, recent: int) -> None:
    last: list[tuple] = []
    again = 0
    for number, text, time in rows:
        row = (None if np.isnan(number) else number, text, time)
        again += row in last
        last = [*(other for other in last if other != row), row][-recent:]
    columns = [np.array([row[0] for row in rows]), [row[1] for row in rows], np.array([row[2] for row in rows])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeats, "RECENT_ROWS", recent)
        assert repeated_share(columns) == again / len(rows)
