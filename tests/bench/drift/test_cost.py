import numpy as np
from prometheus_client import generate_latest

from bench.drift import cost
from penstock_server.drift.dependence import joint_drift
from penstock_server.drift.report import DriftRules
from penstock_server.features.counting import counts_of


def test_a_measured_batch_is_counted_in_every_column() -> None:
    pipeline, numbers, strings = cost.batch(8)
    out = np.empty((8, pipeline.width), pipeline.dtype)
    cells = np.zeros(pipeline.cells_shape, np.int64)
    pipeline.run(numbers, strings, 8, out, cells)
    assert counts_of(cells).rows.tolist() == [8] * (len(cost.NUMBERS) + len(cost.STRINGS))


def test_every_tenth_feature_of_the_wide_window_drifted_and_is_rendered() -> None:
    drift = cost.evaluate(*cost.wide())
    drifted = [at for at, column in enumerate(drift.columns) if column.drifted]
    assert len(drift.columns) == cost.FEATURES
    assert drifted == list(range(0, cost.FEATURES, 10))
    rendered = generate_latest(cost.gauges_of(drift)).decode()
    assert all(f'feature_name="feature {at}"' in rendered for at in drifted)


def test_as_many_pairs_and_segments_are_measured_as_a_version_has() -> None:
    joint, parts = cost.together()
    found = joint_drift(joint, parts, DriftRules())
    assert (len(found.pairs), len(found.segments)) == (40, 32 * 4)
    assert all(one.drifted is False for one in found.pairs)
    assert all(one.drifted is False for one in found.segments)
