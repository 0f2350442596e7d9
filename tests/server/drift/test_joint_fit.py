from typing import Any

import numpy as np
import pytest

from penstock_server.drift import baseline as baseline_file
from penstock_server.drift.baseline import Baseline
from penstock_server.drift.codes import codes_of
from penstock_server.drift.fit import fit_baseline, fit_classes, fit_number, with_predictions
from penstock_server.drift.joint_fit import with_joint
from penstock_server.features.joint import JointCounter
from penstock_server.features.spec.spec import FeatureSpec, Join, NumberColumn, StringColumn, Take

ROWS = 4000
SPEC = FeatureSpec(
    (NumberColumn("a"), NumberColumn("b"), NumberColumn("c"), StringColumn("city"), NumberColumn("one")),
    Join((Take(("a",)),)),
)


def table(rows: int = ROWS, seed: int = 0, cities: int = 12) -> dict[str, Any]:
    """b follows a; the city says something of c; one is constant."""
    rng = np.random.default_rng(seed)
    a, c = rng.normal(size=(2, rows))
    city = np.array([f"c{at:02}" for at in range(cities)])[np.clip((c * 2 + 6).astype(int), 0, cities - 1)]
    return {"a": a, "b": 0.8 * a + 0.6 * rng.normal(size=rows), "c": c, "city": city, "one": np.ones(rows)}


def fitted(rows: dict[str, Any], predicted: Any = None) -> Baseline:
    baseline = fit_baseline(SPEC, rows)
    if predicted is not None:
        baseline = with_predictions(baseline, predicted)
    return baseline


def pairs_of(baseline: Baseline) -> list[tuple[str, str]]:
    assert baseline.joint is not None
    return [baseline.joint.names(one) for one in baseline.joint.pairs]


def test_the_most_dependent_pairs_come_first_and_constant_columns_have_none() -> None:
    rows = table()
    found = with_joint(baseline := fitted(rows), codes_of(SPEC, baseline, rows))
    pairs = pairs_of(found)
    assert set(pairs[:2]) == {("a", "b"), ("c", "city")}
    assert not {"one"} & {name for pair in pairs for name in pair}
    assert len(pairs) == 6
    assert found.joint is not None
    assert found.joint.segments == ()


def test_a_pairs_table_holds_the_rows() -> None:
    rows = table()
    found = with_joint(baseline := fitted(rows), codes_of(SPEC, baseline, rows)).joint
    assert found is not None
    (pair,) = [one for one in found.pairs if found.names(one) == ("a", "b")]
    counts = np.array(pair.counts).reshape(found.shape(pair))
    edges = np.quantile(rows["a"], [0.25, 0.5, 0.75]), np.quantile(rows["b"], [0.25, 0.5, 0.75])
    groups = [np.searchsorted(at, rows[name]) for at, name in zip(edges, "ab", strict=True)]
    expected = np.zeros((4, 4), int)
    np.add.at(expected, tuple(groups), 1)
    assert np.abs(counts - expected).max() <= 4
    assert pair.dispersion == (pytest.approx(1.0, abs=0.2),)
    assert found.columns[pair.first].labels[1].startswith("-0.6")


def test_serving_counts_what_was_fitted() -> None:
    """The same rows through the counter that serves give the tables of the baseline."""
    rows = table(640)
    labels = (rows["c"] > 0).astype(np.int64)
    baseline = fitted(rows, fit_classes("label", labels))
    found = with_joint(baseline, codes_of(SPEC, baseline, rows), labels)
    cells = found.joint_cells
    assert cells is not None
    counts = np.zeros(cells.words, np.int64)
    assert found.joint_words == cells.words
    numbers = ("a", "b", "c", "one")
    counter = JointCounter(cells, numbers=numbers, times=(), strings=("city",), counts=counts)
    for at in range(0, 640, 64):
        part = slice(at, at + 64)
        matrix = np.stack([rows[name][part] for name in numbers], axis=1)
        texts = b"".join(len(city).to_bytes(4, "little") + city.encode() for city in rows["city"][part])
        counter.add(matrix.tobytes(), [texts], 64, labels[part])
    assert counts[0] == 640
    assert found.joint is not None
    assert counts[1:].tolist() == [count for one in found.joint.tables for count in one.counts]


def test_segments_are_of_the_columns_that_say_most_of_the_predictions() -> None:
    rows = table()
    labels = (rows["a"] > 1).astype(np.int64)
    baseline = fitted(rows, fit_classes("label", labels, ("no", "yes")))
    found = with_joint(baseline, codes_of(SPEC, baseline, rows), labels).joint
    assert found is not None
    names = [found.names(one) for one in found.segments]
    assert names[:2] == [("a", ""), ("b", "")]
    assert {name for name, _ in names} == {"a", "b", "c", "city"}
    first = found.segments[0]
    assert found.columns[first.second].labels == ("no", "yes")
    assert np.array(first.counts).reshape(4, 2)[:, 1].tolist() == [0, 0, 0, labels.sum()]
    assert len(first.dispersion) == 4
    (city,) = [one for one in found.segments if found.names(one)[0] == "city"]
    labels_of_city = found.columns[city.first].labels
    assert len(labels_of_city) == 8
    assert labels_of_city[-1] == "(others)"


def test_scores_are_answers_too() -> None:
    rows = table()
    baseline = fitted(rows, fit_number("y", rows["a"]))
    found = with_joint(baseline, codes_of(SPEC, baseline, rows), rows["a"]).joint
    assert found is not None
    assert len(found.columns[found.segments[0].second].labels) == 4


def test_missing_values_are_a_group_where_training_had_some() -> None:
    rows = table()
    rows["a"][::10] = np.nan
    rows["city"] = np.where(np.arange(ROWS) % 10 == 1, "", rows["city"])
    rows["b"][0] = np.nan
    found = with_joint(baseline := fitted(rows), codes_of(SPEC, baseline, rows)).joint
    assert found is not None
    labels = {column.column: column.labels for column in found.columns}
    assert labels["a"][-1] == labels["city"][-1] == "(missing)"
    assert "(missing)" not in labels["b"]
    (pair,) = [one for one in found.pairs if found.names(one) == ("a", "b")]
    assert sum(pair.counts) == ROWS - 1


def test_the_file_comes_back_and_the_few_values_of_a_text_have_a_group_each() -> None:
    rows = table(cities=3)
    baseline = fitted(rows)
    found = with_joint(baseline, codes_of(SPEC, baseline, rows))
    assert baseline_file.decode(baseline_file.encode(found)) == found
    assert found.joint is not None
    labels = {column.column: column.labels for column in found.joint.columns}
    assert labels["city"] == ("c02", "c01", "c00", "(others)")


def test_without_anything_to_join_there_is_nothing() -> None:
    spec = FeatureSpec((NumberColumn("x"),), Take(("x",)))
    rows = {"x": np.arange(1000.0)}
    baseline = fit_baseline(spec, rows)
    assert with_joint(baseline, codes_of(spec, baseline, rows)).joint is None


def test_many_columns_take_seconds_and_have_forty_pairs() -> None:
    columns = [f"x{at}" for at in range(400)]
    spec = FeatureSpec(tuple(map(NumberColumn, columns)), Take(tuple(columns)))
    rows: dict[str, Any] = dict(zip(columns, np.random.default_rng(0).normal(size=(400, 500)), strict=True))
    rows["x7"] = rows["x200"] + 0.1
    baseline = fit_baseline(spec, rows)
    found = with_joint(baseline, codes_of(spec, baseline, rows)).joint
    assert found is not None
    assert len(found.pairs) == 40
    assert found.names(found.pairs[0]) == ("x7", "x200")
