"""Checks the rows and splits them by time: the latest months are the test set."""

from pathlib import Path

import pandas as pd
import yaml
from customers import COLUMNS, LABEL, MONTH, NUMBERS


def checked(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows with what a model needs, in the order of time.

    Raises:
        ValueError: a column is missing, a label is neither 0 nor 1, or a number is below 0.
    """
    if missing := [name for name in (MONTH, *COLUMNS, LABEL) if name not in frame.columns]:
        raise ValueError(f"the customers lack {', '.join(missing)}")
    if not frame[LABEL].isin([0, 1]).all():
        raise ValueError(f"{LABEL} holds other values than 0 and 1")
    if negative := [name for name in NUMBERS if (frame[name] < 0).any()]:
        raise ValueError(f"numbers are negative in {', '.join(negative)}")
    return frame.sort_values(MONTH, kind="stable", ignore_index=True)


def split(frame: pd.DataFrame, test_months: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The earlier months, and the latest `test_months`.

    Raises:
        ValueError: there are not more months than that.
    """
    months = sorted(frame[MONTH].unique())
    if not 0 < test_months < len(months):
        raise ValueError(
            f"test_months is {test_months}, expected 1 to {len(months) - 1}: there are {len(months)} months"
        )
    is_test = frame[MONTH].isin(months[-test_months:])
    return frame[~is_test], frame[is_test]


def main() -> None:
    """Writes data/train.parquet and data/test.parquet."""
    params = yaml.safe_load(Path("params.yaml").read_text())["preprocess"]
    train, test = split(checked(pd.read_csv("data/customers.csv")), params["test_months"])
    train.to_parquet("data/train.parquet", index=False)
    test.to_parquet("data/test.parquet", index=False)


if __name__ == "__main__":
    main()
