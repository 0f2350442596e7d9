from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from penstock_server.drift import significance, statistics
from penstock_server.drift.baseline import AnswerBaseline, Baseline, HoldOut, StringBaseline
from penstock_server.drift.evaluate import columns_drift, version_drift
from penstock_server.drift.expected_accuracy import expected_accuracy
from penstock_server.drift.fit import fit_classes, fit_number, with_predictions
from penstock_server.drift.importance import Importance
from penstock_server.drift.order import RowOrder
from penstock_server.drift.power import smallest_detectable
from penstock_server.drift.reference import Reference, reference_of
from penstock_server.drift.report import ColumnDrift, DriftRules, VersionDrift
from penstock_server.features.counting import Counts

RNG = np.random.default_rng(5)
ROWS = 20_000
SAMPLE = RNG.normal(10, 2, ROWS)
WORDS = StringBaseline("word", ("a", "b"), (15_000, 5000))
BASELINE = with_predictions(
    Baseline((fit_number("same", SAMPLE), fit_number("moved", SAMPLE), WORDS), "digest"),
    fit_classes("label", RNG.integers(0, 2, ROWS), ("no", "yes")),
)
REFERENCE = reference_of(BASELINE)


def counted(reference: Reference, **columns: Any) -> Counts:
    """Rows in a reference's cells; numbers as values, other columns as cells."""
    cells, outside = np.zeros_like(reference.cells), np.zeros((len(reference.names), 2), np.int64)
    sums = np.zeros_like(reference.sums)
    for name, values in columns.items():
        at = reference.names.index(name)
        if not reference.is_number[at]:
            cells[at] = np.bincount(values, minlength=cells.shape[1])
            continue
        column = next(one for one in BASELINE.columns if one.name == name)
        finite = values[np.isfinite(values)]
        places = np.searchsorted(column.edges, finite, side="right")  # type: ignore[union-attr]
        bins = sums.shape[1]
        cells[at, :bins] = np.bincount(places, minlength=bins)
        cells[at, bins:] = np.isnan(values).sum(), np.isinf(values).sum(), 0
        sums[at] = np.bincount(places, finite, minlength=bins)
        outside[at] = (finite < SAMPLE.min()).sum(), (finite > SAMPLE.max()).sum()
    return Counts(cells, outside, sums)


def evaluated(rules: DriftRules = DriftRules(), **columns: Any) -> VersionDrift:  # noqa: B008 - frozen
    window = counted(REFERENCE, **columns)
    return version_drift(
        "m", "1", ("champion",), reference=REFERENCE, window=window, rows=2000, window_rows=2000, rules=rules
    )


def by_name(found: VersionDrift) -> dict[str, ColumnDrift]:
    return {column.name: column for column in found.columns}


def usual(**other: Any) -> dict[str, Any]:
    rng = np.random.default_rng(6)
    rows = 2000
    return {
        "same": rng.normal(10, 2, rows),
        "moved": rng.normal(12, 2, rows),
        "word": rng.choice([0, 1], rows, p=[0.75, 0.25]),
        "label": rng.integers(0, 2, rows),
        **other,
    }


def test_what_moved_drifted_and_the_rest_did_not() -> None:
    found = evaluated(**usual())
    same, moved, word = found.columns
    assert (same.drifted, moved.drifted, word.drifted) == (False, True, False)
    assert (found.tested, found.drifted, found.alarmed) == (3, 1, None)
    assert found.global_p_value == pytest.approx(3 * (moved.p_value or 0), abs=1e-30)
    assert found.predictions is not None
    assert (found.predictions.kind, found.predictions.drifted) == ("class", False)
    assert found.predictions.labels == ("no", "yes")


def test_answers_are_judged_together_and_apart_from_the_columns() -> None:
    numbers = (AnswerBaseline("y", "value", fit_number(name, SAMPLE)) for name in ("sure", "still"))
    reference = reference_of(msgspec.structs.replace(BASELINE, answers=tuple(numbers)))
    window = counted(reference, **usual())
    cells = window.cells[:2][::-1]  # of "moved" and of "same"
    window.cells[-2:] = cells
    columns, answers = columns_drift(reference, window, DriftRules())
    assert [column.name for column in answers] == ["label", "sure", "still"]
    assert [column.drifted for column in answers] == [False, True, False]
    assert answers[1].p_value == columns[1].p_value
    report = version_drift(
        "m", "1", (), reference=reference, window=window, rows=2000, window_rows=2000, rules=DriftRules()
    )
    assert (report.predictions, report.answers) == (answers[0], answers[1:])
    assert report.answered == answers
    assert (report.tested, report.drifted) == (3, 1)


def test_the_accuracy_is_expected_of_the_confidence_and_of_rows_that_say_something() -> None:
    numbers = fit_number("confidence", SAMPLE)
    holdout = HoldOut(tuple(count // 2 for count in numbers.counts))
    answers = (
        AnswerBaseline("y", "value", fit_number("still", SAMPLE)),
        AnswerBaseline("y", "largest", numbers, holdout),
    )
    reference = reference_of(msgspec.structs.replace(BASELINE, answers=answers))
    window = counted(reference, **usual())
    window.cells[-1] = window.cells[1]
    kept: dict[str, Any] = {"reference": reference, "window": window, "rows": 2000, "window_rows": 2000}
    found = version_drift("m", "1", (), **kept, rules=DriftRules()).expected_accuracy
    assert found == expected_accuracy(holdout, reference.cells[-1], window.cells[-1], window.outside[-1])
    seen = np.ones(len(reference.names))
    seen[-1] = 3.0
    wider = version_drift("m", "1", (), **kept, rules=DriftRules(), dispersion=seen).expected_accuracy
    assert found is not None
    assert wider is not None
    assert wider.high > found.high
    assert evaluated(**usual()).expected_accuracy is None


def test_figures_are_those_of_the_plain_functions() -> None:
    columns = usual()
    window = counted(REFERENCE, **columns)
    moved = by_name(evaluated(**columns))["moved"]
    pair = REFERENCE.cells[1], window.cells[1]
    assert moved.jensen_shannon == statistics.jensen_shannon(*pair)
    assert moved.psi == statistics.psi(*pair)
    assert moved.psi_unbiased == statistics.psi_unbiased(*pair)
    assert moved.p_value == significance.p_value(*pair, 0.1, REFERENCE.dispersion[1])
    assert moved.wasserstein == pytest.approx(1.0, abs=0.05)  # a shift by one deviation
    assert moved.ks == pytest.approx(0.38, abs=0.03)
    assert (moved.rows, moved.rows_needed) == (2000, 25 * 20)
    assert sum(moved.current) == pytest.approx(1)
    assert len(moved.labels) == len(moved.reference) == len(moved.current) == 20


def test_odd_values_have_cells_and_shares_of_their_own() -> None:
    values = usual()["same"]
    values[:400], values[400:500], values[500:700] = np.nan, np.inf, 1e9
    words = np.full(2000, REFERENCE.sums.shape[1] + 2)
    found = by_name(evaluated(**usual(same=values, word=words)))
    same, word = found["same"], found["word"]
    assert (same.missing_ratio, same.infinite_ratio, same.out_of_range_ratio) == (0.2, 0.05, 0.1)
    assert (word.missing_ratio, word.unseen_ratio) == (0.0, 1.0)
    assert same.labels[-2:] == ("(missing)", "(infinite)")
    assert (same.reference[-2:], same.current[-2:]) == ((0.0, 0.0), (0.2, 0.05))
    assert (word.labels[-1], word.current) == ("(unseen)", (0.0, 0.0, 0.0, 1.0))


def test_a_figure_that_a_kind_has_not_is_none() -> None:
    found = by_name(evaluated(**usual()))
    assert (found["word"].ks, found["word"].ks_slack, found["word"].wasserstein) == (None, None, None)
    assert (found["word"].infinite_ratio, found["word"].out_of_range_ratio) == (None, None)
    assert found["same"].unseen_ratio is None
    constant = reference_of(Baseline((fit_number("x", np.ones(1000)),), "digest"))
    (column,), answers = columns_drift(
        constant, Counts(constant.cells, np.zeros((1, 2), np.int64), constant.sums), DriftRules()
    )
    assert (column.ks, column.wasserstein, answers) == (0.0, None, ())


def test_too_few_rows_tell_shares_alone_and_are_no_part_of_the_judgement() -> None:
    values = np.full(499, 12.0)
    values[:100], values[100:150], values[150:200] = np.nan, np.inf, 1e9
    found = evaluated(**usual(moved=values))
    moved = by_name(found)["moved"]
    assert (moved.rows, moved.enough_rows) == (499, False)
    figures = (
        moved.jensen_shannon, moved.psi, moved.psi_unbiased, moved.ks, moved.ks_slack, moved.wasserstein, moved.p_value,
        moved.unseen_ratio, moved.drifted, moved.detectable,
    )  # fmt: skip
    assert set(figures) == {None}
    assert (moved.missing_ratio, moved.infinite_ratio, moved.out_of_range_ratio) == (100 / 499, 50 / 499, 50 / 499)
    assert (found.tested, found.drifted) == (2, 0)


def test_one_row_has_shares_and_none_has_not() -> None:
    found = by_name(evaluated(same=np.array([np.nan]), word=np.array([REFERENCE.sums.shape[1] + 2])))
    assert (found["same"].missing_ratio, found["same"].out_of_range_ratio, found["word"].unseen_ratio) == (
        1.0,
        0.0,
        1.0,
    )
    moved = found["moved"]
    assert (moved.missing_ratio, moved.infinite_ratio, moved.out_of_range_ratio, moved.unseen_ratio) == (None,) * 4


@pytest.mark.parametrize("dispersion", [1.0, 3.0])
def test_the_smallest_detectable_index_is_that_of_the_rows_in_the_window(dispersion: float) -> None:
    window = counted(REFERENCE, **usual())
    seen = np.full(len(REFERENCE.names), dispersion)
    columns, (predictions,) = columns_drift(REFERENCE, window, DriftRules(rate=0.01, minimum_effect=0.2), seen)
    assert columns[0].detectable == pytest.approx(exact_detectable(0, 2000, dispersion), rel=0.003)
    assert columns[2].detectable == pytest.approx(exact_detectable(2, 2000, dispersion), rel=0.03)
    assert predictions.detectable == pytest.approx(exact_detectable(3, 2000, dispersion), rel=0.03)


def exact_detectable(at: int, rows: int, dispersion: float) -> float:
    """By the exact function, which knows one dispersion for both sides: so with as few rows as give the same noise."""
    known = float(REFERENCE.dispersion[at])
    noise = known / ROWS + max(known, dispersion) / rows
    return float(smallest_detectable(REFERENCE.cells[at], round(1 / (noise - 1 / ROWS)), 0.2, rate=0.01))


@pytest.mark.parametrize(("dispersion", "is_judged"), [(4.0, True), (4.01, False)])
def test_as_many_effective_rows_as_are_needed_are_enough(dispersion: float, is_judged: bool) -> None:
    window = counted(REFERENCE, **usual())
    columns, _ = columns_drift(REFERENCE, window, DriftRules(), np.full(len(REFERENCE.names), dispersion))
    assert columns[0].rows_needed == 500 == 2000 / 4
    assert (columns[0].p_value is not None, columns[0].detectable is not None) == (is_judged, is_judged)


def test_where_no_drift_would_be_called_no_index_is_detectable() -> None:
    window = counted(REFERENCE, **usual())
    columns, _ = columns_drift(REFERENCE, window, DriftRules(), np.full(len(REFERENCE.names), 5.0))
    assert (columns[0].enough_rows, columns[0].effective_rows, columns[0].detectable) == (True, 400, None)


def test_the_order_of_the_training_rows_is_told() -> None:
    assert (evaluated(**usual()).order, evaluated(**usual()).ordered_by) == ("given", ())
    sorted_ = replace(REFERENCE, order=RowOrder("sorted", ("same",)))
    found = version_drift(
        "m", "1", (), reference=sorted_, window=counted(sorted_), rows=0, window_rows=1, rules=DriftRules()
    )
    assert (found.order, found.ordered_by) == ("sorted", ("same",))


def test_the_rate_itself_is_drift_of_columns_and_of_predictions_alike() -> None:
    columns = usual()
    columns["label"] = np.repeat([0, 1], [600, 1400])
    found = evaluated(**columns)
    assert found.predictions is not None
    p_value = found.predictions.p_value
    assert p_value is not None
    for rate, drifted in ((p_value, True), (np.nextafter(p_value, 0), False)):
        at_rate = evaluated(DriftRules(rate=rate), **columns)
        assert at_rate.predictions is not None
        assert at_rate.predictions.drifted is drifted


def test_how_much_a_column_matters_is_told_with_it() -> None:
    reference = reference_of(BASELINE, Importance("AUC lost", {"same": 0.3, "word": 0.1}, rows=100, repeats=1))
    columns, (predictions,) = columns_drift(reference, counted(reference, **usual()), DriftRules())
    assert [column.importance for column in (*columns, predictions)] == [0.3, None, 0.1, None]


def test_what_only_training_had_is_shown_too() -> None:
    values = SAMPLE.copy()
    values[: ROWS // 4] = np.nan
    reference = reference_of(Baseline((fit_number("same", values),), "digest"))
    window = counted(reference, same=usual()["same"])
    (column,), _ = columns_drift(reference, window, DriftRules())
    assert (column.labels[-1], column.reference[-1], column.current[-1]) == ("(missing)", 0.25, 0.0)


def test_a_single_row_is_the_whole_window() -> None:
    found = by_name(evaluated(word=np.array([1])))
    assert found["word"].current == (0.0, 1.0, 0.0)


def test_nothing_served_is_nothing_said() -> None:
    found = evaluated()
    assert (found.tested, found.drifted, found.global_p_value) == (0, None, None)
    assert all(column.current == (0.0,) * len(column.labels) for column in found.columns)


def test_rules_and_baselines_say_what_is_too_small_to_matter() -> None:
    rng = np.random.default_rng(7)
    slightly = usual(same=rng.normal(10.3, 2, 2000))
    assert by_name(evaluated(**slightly))["same"].drifted is False
    strict = evaluated(DriftRules(minimum_effect=0.0), **slightly)
    assert by_name(strict)["same"].drifted is True
    assert by_name(strict)["same"].minimum_effect == 0.0


def test_a_column_that_goes_missing_is_drift() -> None:
    values = usual()["same"]
    values[: 3 * len(values) // 5] = np.nan
    same = by_name(evaluated(**usual(same=values)))["same"]
    assert same.drifted
    assert same.missing_ratio == 0.6


def test_one_outlier_changes_next_to_nothing() -> None:
    values = RNG.normal(10, 2, 1000)
    calm = by_name(evaluated(**usual(same=values)))["same"]
    values[0] = 1e4
    hit = by_name(evaluated(**usual(same=values)))["same"]
    assert abs((hit.psi or 0) - (calm.psi or 0)) < 1e-3
    assert abs((hit.psi_unbiased or 0) - (calm.psi_unbiased or 0)) < 1e-3
