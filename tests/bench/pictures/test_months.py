import numpy as np
import pandas as pd
import pytest

from bench.pictures import months
from penstock_server.drift.fit import fit_baseline
from penstock_server.drift.reference import reference_of
from penstock_server.features.pipeline import Pipeline
from penstock_tools.demo import flights


@pytest.fixture(scope="module")
def frame():
    """A year of 800 flights a month; from June on it is warm."""
    rng = np.random.default_rng(0)
    month = np.repeat(np.arange(1, 13), 800)
    columns = {name: rng.normal(size=len(month)) for name in flights.NUMBERS}
    columns |= {name: rng.choice(np.array(["a", "b", ""], object), len(month)) for name in flights.STRINGS}
    columns["temp"] += 2.0 * (month >= 6)
    return pd.DataFrame({**columns, "month": month})


def test_the_month_in_which_a_feature_drifts(frame):
    found = months.measure(frame)
    assert [(each.number, each.rows) for each in found] == [(number, 800) for number in range(1, 13)]
    for each in found:
        drifted = [column.name for column in each.columns if column.drifted]
        assert drifted == (["temp"] if each.number >= 6 else [])


def test_batches_count_what_the_table_holds(frame):
    table = flights.table(flights.by_months(frame, [1]))
    spec = months.specification()
    baseline = fit_baseline(spec, table)
    counts = months.counted(Pipeline(spec, baseline.cells_for(spec)), table)
    np.testing.assert_array_equal(counts.cells, reference_of(baseline).cells)
