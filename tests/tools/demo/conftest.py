"""Made-up flights, from which a model learns in a moment."""

import numpy as np
import pandas as pd
import pytest

from penstock_tools.demo import flights


def made_up_flights(rows=6000):
    """Six months of flights that are late on windy evenings."""
    draw = np.random.default_rng(0)
    made = {name: draw.normal(50, 10, rows) for name in flights.NUMBERS}
    made["wind_gust"] = np.where(draw.random(rows) < 0.7, np.nan, draw.uniform(16, 60, rows))
    made["sched_dep_minute"] = draw.integers(300, 1440, rows).astype(float)
    made |= {name: draw.choice(["A", "B", "", "C"], rows) for name in flights.STRINGS}
    risk = 0.1 + 0.4 * (made["sched_dep_minute"] > 1000) + 0.4 * (np.nan_to_num(made["wind_gust"]) > 30)
    made["late"] = draw.random(rows) < risk
    made["month"] = np.arange(rows) % 6 + 1
    return pd.DataFrame(made)


@pytest.fixture(scope="module")
def frame():
    return made_up_flights()
