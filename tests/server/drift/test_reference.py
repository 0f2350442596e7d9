import numpy as np
import pytest
from msgspec.structs import replace

from penstock_server.drift.baseline import AnswerBaseline
from penstock_server.drift.fit import fit_baseline, fit_classes, fit_number, with_predictions
from penstock_server.drift.order import RowOrder
from penstock_server.drift.reference import bin_labels, reference_of
from penstock_server.features.spec.spec import FeatureSpec, Join, NumberColumn, StringColumn, Take

SPEC = FeatureSpec((NumberColumn("x"), StringColumn("s"), NumberColumn("gone")), Join((Take(("x",)),)))
TABLE = {
    "x": [1.0, 2, 3, 4, np.nan, np.inf],
    "s": ["b", "b", "a", "", "?", "b"],
    "gone": [np.nan] * 6,
}
BASELINE = fit_baseline(SPEC, TABLE, bins=2)


def test_a_baselines_rows_lie_in_its_arrays() -> None:
    found = reference_of(with_predictions(BASELINE, fit_classes("label", [1, 1, 0, 0, 0, 0], ("no", "yes"))))
    assert found.names == ("x", "s", "gone", "label")
    assert found.kinds == ("number", "string", "number", "class")
    assert found.has_predictions
    assert found.cells.tolist() == [
        [1, 3, 0, 0, 1, 1, 0],
        [3, 1, 1, 0, 1, 0, 0],
        [0, 0, 0, 0, 6, 0, 0],
        [4, 2, 0, 0, 0, 0, 0],
    ]
    assert found.sums[:3].tolist() == [[1, 9, 0, 0], [0] * 4, [0] * 4]
    assert found.edges.tolist() == [[pytest.approx(2 - 2e-6)] * 4, [0] * 4, [0] * 4, [0] * 4]
    assert found.is_number.tolist() == [True, False, True, False]
    assert found.labels[1:] == (("b", "?", "a", "(others)"), ("any",), ("no", "yes"))


def test_where_a_column_has_fewer_scales_short_stretches_vary_in_proportion() -> None:
    columns = (
        replace(BASELINE.columns[0], dispersion=9.0, finer=(3.0, 2.0)),
        replace(BASELINE.columns[1], dispersion=17.0),
    )
    found = reference_of(replace(BASELINE, columns=columns))
    assert found.scales.tolist() == [[9, 3, 2], [17, 5, 2]]
    assert found.dispersion.tolist() == [9, 17]


def test_it_tells_the_order_of_the_rows() -> None:
    assert reference_of(BASELINE).order == RowOrder()
    shuffled = replace(BASELINE, order="shuffled", ordered_by=("x", "s"))
    assert reference_of(shuffled).order == RowOrder("shuffled", ("x", "s"))


def test_answers_stand_after_the_predictions() -> None:
    numbers = fit_number("confidence", np.arange(6.0), 2)
    plain = replace(BASELINE, answers=(AnswerBaseline("scores", "largest", numbers),))
    for baseline in (plain, with_predictions(plain, fit_classes("label", [1, 1, 0, 0, 0, 0]))):
        found = reference_of(baseline)
        assert (found.names[found.columns :][-1], found.kinds[-1], bool(found.is_number[-1])) == (
            "confidence", "score", True
        )  # fmt: skip
        assert found.columns == 3
        assert len(found.names) == len(found.importance) == found.columns + found.has_predictions + 1


def test_a_regressions_output_is_a_score() -> None:
    found = reference_of(with_predictions(BASELINE, fit_number("y", np.array([1.0, 2.0, 3.0]), 2)))
    assert (found.kinds[-1], found.names[-1], bool(found.is_number[-1])) == ("score", "y", True)


def test_bins_are_called_by_their_edges_or_their_one_value() -> None:
    assert bin_labels(fit_number("x", np.arange(100.0), 4)) == ("< 24", "24 to 49", "49 to 74", ">= 74")
    few = fit_number("x", np.array([1.0] * 60 + [2.0] * 30 + [3.5] * 10), 10)
    assert bin_labels(few) == ("< 1", "= 1", "1 to 2", "= 2", "> 2")
