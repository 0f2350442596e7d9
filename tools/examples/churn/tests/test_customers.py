import pandas as pd
from customers import CHANGED_MONTH, COLUMNS, CUSTOMERS, LABEL, MONTH, month


def test_a_month_is_the_same_each_time_and_another_one_differs():
    pd.testing.assert_frame_equal(month(2), month(2))
    assert not month(2)[COLUMNS].equals(month(3)[COLUMNS])


def test_a_month_has_its_columns_and_its_last_day():
    frame = month(2)
    assert list(frame.columns) == [MONTH, *COLUMNS, LABEL]
    assert len(frame) == CUSTOMERS
    assert set(frame[MONTH]) == {"2026-02-28"}
    assert set(frame[LABEL]) == {0, 1}


def test_prices_rise_in_the_seventh_month():
    before, after = month(CHANGED_MONTH - 1), month(CHANGED_MONTH)
    assert after["monthly_charge"].mean() > before["monthly_charge"].mean() + 10
    assert after[LABEL].mean() > before[LABEL].mean() + 0.1
