"""Agreement with Evidently, the tool that most people compare with, on columns coded by the same bins."""

from importlib import import_module
from typing import Any

import numpy as np
import pytest

from penstock_server.drift import statistics
from penstock_server.drift.fit import fit_number

pytestmark = pytest.mark.slow

pd = pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def tests_of() -> Any:
    """Evidently's drift tests by name, of a reference and a current column."""
    # Evidently 0.7 takes it from pandas when it is imported; pandas 3 has it no more, and no drift test uses it.
    types = import_module("pandas.core.dtypes.common")
    if not hasattr(types, "infer_dtype_from_object"):
        types.infer_dtype_from_object = None
    pytest.importorskip("evidently")
    stattests = import_module("evidently.legacy.calculations.stattests")
    kind = import_module("evidently.legacy.core").ColumnType.Categorical

    def value(name: str, reference: Any, current: Any) -> float:
        test = getattr(stattests, f"{name}_stat_test")
        return float(test.func(pd.Series(reference), pd.Series(current), kind, 0.1)[0])

    return value


def coded(shift: float, rows: int, seed: int) -> tuple[Any, Any]:
    """Rows as the cells that they are counted in."""
    rng = np.random.default_rng(seed)
    reference, current = rng.gamma(2, 1, 5000), rng.gamma(2, 1, rows) + shift
    edges = fit_number("x", reference).edges
    return np.searchsorted(edges, reference, side="right"), np.searchsorted(edges, current, side="right")


def counts(sides: tuple[Any, Any]) -> tuple[Any, Any]:
    size = int(max(side.max() for side in sides)) + 1
    return np.bincount(sides[0], minlength=size), np.bincount(sides[1], minlength=size)


CASES = [(0.0, 1000, 0), (0.0, 40, 1), (0.5, 500, 2), (3.0, 700, 3), (40.0, 50, 4), (0.2, 60_000, 5)]


@pytest.mark.parametrize(("shift", "rows", "seed"), CASES)
def test_psi_is_evidentlys(tests_of: Any, shift: float, rows: int, seed: int) -> None:
    """A1."""
    sides = coded(shift, rows, seed)
    assert abs(statistics.psi(*counts(sides)) - tests_of("psi", *sides)) <= 1e-12


@pytest.mark.parametrize(("shift", "rows", "seed"), CASES)
def test_jensen_shannon_is_evidentlys_in_another_base(tests_of: Any, shift: float, rows: int, seed: int) -> None:
    """A2; the root of a difference near 1e-16 is why equal shares are left out."""
    sides = coded(shift, rows, seed)
    found = statistics.jensen_shannon(*counts(sides)) * np.sqrt(np.log(2))
    assert abs(found - tests_of("jensenshannon", *sides)) <= 1e-12


def test_the_public_report_says_the_same(tests_of: Any) -> None:
    evidently = import_module("evidently")
    drift_of = import_module("evidently.metrics").ValueDrift
    sides = coded(0.5, 500, 2)
    definition = evidently.DataDefinition(categorical_columns=["x"])
    reference, current = (
        evidently.Dataset.from_pandas(pd.DataFrame({"x": side.astype(str)}), data_definition=definition)
        for side in sides
    )
    report = evidently.Report([drift_of(column="x", method="psi")]).run(current, reference)
    assert abs(statistics.psi(*counts(sides)) - float(report.dict()["metrics"][0]["value"])) <= 1e-12


def test_what_goes_missing_it_does_not_see(tests_of: Any) -> None:
    """A7, the other side: without its missing rows a column looks as before, while here they are a cell."""
    rng = np.random.default_rng(8)
    reference = pd.Series(rng.integers(0, 5, 5000).astype(float))
    current = pd.Series(np.where(rng.random(1000) < 0.6, np.nan, rng.integers(0, 5, 1000)))
    assert tests_of("psi", reference.dropna(), current.dropna()) < 0.1
    known = np.append(np.bincount(reference.astype(int), minlength=5), 0)
    now = np.append(np.bincount(current.dropna().astype(int), minlength=5), current.isna().sum())
    assert statistics.psi(known, now) > 1
