"""The customers of a telephone company at the end of each month: what the warehouse has, and what a model may see of it.

The rows are made up, the same ones each time. From the seventh month on prices rise and yearly contracts are no longer sold,
so that a model of the months before is asked about customers that it has not seen. In a repository of your own, `month` is a
query, and the rest stays.
"""

import numpy as np
import pandas as pd

TEXTS = ["contract", "payment", "region"]
NUMBERS = ["tenure_months", "monthly_charge", "support_calls", "late_payments", "gigabytes"]
COLUMNS = [*TEXTS, *NUMBERS]
LABEL = "churned"
MONTH = "month"
"""The last day of the month, an ISO 8601 date: the order of the rows, and no column of the model."""

CUSTOMERS = 2000
CHANGED_MONTH = 7


def month(number: int) -> pd.DataFrame:
    """The customers at the end of this month, from 1 on: `MONTH`, `COLUMNS`, and in `LABEL` 1 for who left in the next one."""
    random = np.random.default_rng([2026, number])
    has_changed = number >= CHANGED_MONTH
    tenure = random.gamma(1.6, 18.0, CUSTOMERS).round()
    contract = random.choice(
        ["monthly", "yearly", "two years"], CUSTOMERS, p=[0.8, 0.05, 0.15] if has_changed else [0.5, 0.3, 0.2]
    )
    charge = random.normal(62.0 if has_changed else 48.0, 12.0, CUSTOMERS).clip(15.0, 130.0).round(2)
    calls = random.poisson(0.9, CUSTOMERS)
    late = random.poisson(0.4, CUSTOMERS)
    gigabytes = random.gamma(2.0, 8.0, CUSTOMERS).round(1)
    payment = random.choice(["card", "transfer", "invoice"], CUSTOMERS, p=[0.5, 0.35, 0.15])
    # Who pays much leaves more easily; after the prices rose, those with a monthly contract and a long tenure do so too.
    leaning = (
        -2.6
        + 1.5 * (contract == "monthly")
        - 0.9 * (contract == "two years")
        + 0.035 * (charge - 48.0)
        + 0.55 * calls
        + 0.7 * late
        + 0.5 * (payment == "invoice")
        - (0.005 if has_changed else 0.045) * np.minimum(tenure, 60.0)
    )
    return pd.DataFrame(
        {
            MONTH: str((pd.Period("2026-01", "M") + (number - 1)).end_time.date()),
            "contract": contract,
            "payment": payment,
            "region": random.choice(["north", "east", "south", "west"], CUSTOMERS),
            "tenure_months": tenure,
            "monthly_charge": charge,
            "support_calls": calls.astype(float),
            "late_payments": late.astype(float),
            # Meters that did not report.
            "gigabytes": np.where(random.random(CUSTOMERS) < 0.04, np.nan, gigabytes),
            LABEL: (random.random(CUSTOMERS) < 1.0 / (1.0 + np.exp(-leaning))).astype(int),
        }
    )
