import pandas as pd
import pytest
from customers import LABEL, MONTH, month
from preprocess import checked, split


def customers():
    return pd.concat([month(number) for number in (2, 1, 3)], ignore_index=True)


def test_the_latest_months_are_held_out():
    train, test = split(checked(customers()), 1)
    assert sorted(train[MONTH].unique()) == ["2026-01-31", "2026-02-28"]
    assert set(test[MONTH]) == {"2026-03-31"}
    assert train[MONTH].is_monotonic_increasing


@pytest.mark.parametrize("months", [0, 3])
def test_a_test_set_needs_months_before_it(months):
    with pytest.raises(ValueError, match=f"test_months is {months}, expected 1 to 2"):
        split(checked(customers()), months)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda frame: frame.drop(columns="contract"), "the customers lack contract"),
        (lambda frame: frame.assign(**{LABEL: 2}), "churned holds other values than 0 and 1"),
        (lambda frame: frame.assign(gigabytes=-1.0), "numbers are negative in gigabytes"),
    ],
)
def test_rows_that_are_none_of_customers(damage, said):
    with pytest.raises(ValueError, match=said):
        checked(damage(customers()))
