"""Rows whose number column shifts, and records of what is found in them."""

import numpy as np
import pandas as pd

from penstock_tools.calibration.delay import Delay
from penstock_tools.calibration.report import AlarmTold, Check, ColumnCheck, Moment, Month

FIRST_S = 1_767_225_600.0  # 2026-01-01
DAY_S = 86_400.0


def frame(rows, shift_from=None, seed=0, by=1.0):
    """Rows a minute apart: an amount that is normal, higher by `by` deviations from a row on, and a city."""
    rng = np.random.default_rng(seed)
    amount = rng.normal(size=rows)
    if shift_from is not None:
        amount[shift_from:] += by
    return pd.DataFrame(
        {
            "at": pd.to_datetime(FIRST_S + 60.0 * np.arange(rows), unit="s", utc=True),
            "amount": amount,
            "city": rng.choice(["Oslo", "Rome", "Bern"], rows),
        }
    )


CHECK = Check(
    title="fares.csv",
    rows=5000,
    looks=50,
    slice_rows=100,
    run_length=1000.0,
    first=Moment(0, FIRST_S),
    last=Moment(4999, FIRST_S + 40 * DAY_S),
    alarms=(
        AlarmTold(
            "amount<b>", "shares", Moment(100, FIRST_S + DAY_S), Moment(400, FIRST_S + 4 * DAY_S),
            Moment(900, FIRST_S + 9 * DAY_S),
        ),
        AlarmTold("city", "unseen", Moment(3000, FIRST_S + 35 * DAY_S), Moment(3200, FIRST_S + 36 * DAY_S), None),
    ),
    months=(Month("2026-01", 4000, 1, ("amount<b>",)), Month("2026-02", 1000, 1, ("city",))),
    columns=(
        ColumnCheck("amount<b>", "number", 0.12, 1.5, 1, (Delay(4000, 100), Delay(600, 0), Delay(200, 0))),
        ColumnCheck("city", "string", None, 9.0, 1, (Delay(), Delay(is_quiet=False), Delay(can_shift=False))),
    ),
    indexes=(0.25, 0.5, 1.0),
    most_rows=40_000,
    notes=("the sample looks shuffled",),
)  # fmt: skip
