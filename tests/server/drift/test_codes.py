import numpy as np
import pandas as pd

from penstock.tensors import join_bytes
from penstock_server.drift.codes import codes_of
from penstock_server.drift.fit import fit_baseline
from penstock_server.features.counting import counts_of
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.encoders import Hash
from penstock_server.features.spec.spec import FeatureSpec, Join, NumberColumn, StringColumn, Take, Text, TimeColumn

SPEC = FeatureSpec(
    (NumberColumn("amount", "accept"), StringColumn("city")), Join((Take(("amount",)), Text("city", Hash(4)))), "FP64"
)


def table(rows, seed, cities):
    rng = np.random.default_rng(seed)
    amount = np.round(rng.normal(size=rows), 1)
    amount[::17], amount[::23], amount[::29] = np.nan, np.inf, -np.inf
    city = rng.choice(cities, rows).astype(object)
    city[::19] = None
    return {"amount": amount, "city": city}


def test_rows_fall_in_the_cells_that_a_server_counts():
    baseline = fit_baseline(SPEC, table(5000, 0, [f"c{at}" for at in range(60)]))
    served = table(700, 1, [f"c{at}" for at in range(70)])
    pipeline = Pipeline(SPEC, baseline.cells_for(SPEC))
    cells = np.zeros(pipeline.cells_shape, np.int64)
    texts = [b"" if city is None else city.encode() for city in served["city"]]
    out = np.empty((700, pipeline.width), pipeline.dtype)
    pipeline.run(served["amount"].tobytes(), [join_bytes(texts)], 700, out, cells)

    codes = codes_of(SPEC, baseline, served)
    counted = [np.bincount(codes[:, at], minlength=baseline.bins + 3) for at in range(2)]
    assert np.array_equal(counted, counts_of(cells).cells)
    # All kinds of cells have rows: the missing, the infinite and the unseen.
    assert all(np.sum(counted, axis=0)[-3:])


def test_of_a_time_its_seconds_are_counted():
    spec = FeatureSpec((TimeColumn("at"), NumberColumn("x", "accept")), Take(("x",)), "FP64")
    at = pd.date_range("2026-01-01", periods=1000, freq="h").to_numpy()
    rows = {"at": at, "x": np.zeros(1000)}
    baseline = fit_baseline(spec, rows)
    codes = codes_of(spec, baseline, rows)
    assert np.array_equal(np.bincount(codes[:, 0])[: len(baseline.columns[0].counts)], baseline.columns[0].counts)
    late = {"at": np.array([None, at[-1]], object), "x": np.zeros(2)}
    assert codes_of(spec, baseline, late)[:, 0].tolist() == [baseline.bins, len(baseline.columns[0].counts) - 1]
