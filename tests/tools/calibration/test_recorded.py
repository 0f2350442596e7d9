import numpy as np
import pandas as pd
import pytest

from penstock_server.drift.fit import fit_baseline, fit_number, with_predictions
from penstock_server.errors import InvalidInputError
from penstock_server.features.spec.spec import NumberColumn, StringColumn, TimeColumn
from penstock_tools.calibration import recorded, rows
from penstock_tools.calibration.rows import SampleFile
from tests.tools.calibration.shifted_rows import FIRST_S, frame


def file(tmp_path, content, time="at", name="fares.parquet"):
    content.to_parquet(tmp_path / name, index=False)
    return SampleFile(tmp_path / name, time)


def test_the_first_rows_in_time_are_the_training_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "CHUNK_ROWS", 999)
    in_time = frame(5000)
    shuffled = in_time.sample(frac=1, random_state=0)
    done = []
    found = recorded.against_first(file(tmp_path, shuffled), 0.4, advance=done.append)
    known = {name: in_time[name].to_numpy()[:2000] for name in ("amount", "city")}
    expected = fit_baseline(recorded.specification(pd.DataFrame(known)), known, time="at")
    assert found.baseline == expected
    assert found.seconds.tolist() == (FIRST_S + 60.0 * np.arange(2000, 5000)).tolist()
    assert (len(found.codes), len(found.usual), sum(done)) == (3000, 2000, 5000)
    counts = np.bincount(found.usual[:, 0], minlength=expected.bins + 3)
    assert np.array_equal(counts, found.reference.cells[0])


def test_without_times_rows_are_taken_as_they_are(tmp_path):
    found = recorded.against_first(file(tmp_path, frame(3000), None), 0.5, without=["at"])
    assert (found.seconds, found.reference.names, len(found.codes)) == (None, ("amount", "city"), 1500)


def test_a_version_is_compared_with_all_rows_and_its_own_columns(tmp_path):
    content = frame(3000)
    known = {name: content[name].to_numpy() for name in ("amount", "city")}
    spec = recorded.specification(pd.DataFrame(known))
    baseline = with_predictions(fit_baseline(spec, known), fit_number("score", np.arange(3000.0)))
    found = recorded.against_version(file(tmp_path, content), spec, baseline)
    assert not found.reference.has_predictions
    assert len(found.codes) == 3000
    assert np.array_equal(np.bincount(found.codes[:, 0], minlength=found.baseline.bins + 3), found.reference.cells[0])
    with pytest.raises(InvalidInputError, match="lack column 'city'; the version takes amount, city"):
        recorded.against_version(file(tmp_path, content.drop(columns="city")), spec, baseline)


def test_columns_are_watched_by_what_they_hold():
    found = recorded.specification(
        pd.DataFrame({"n": [1, 2], "t": pd.to_datetime(["2026-01-01", None]), "s": ["a", None], "b": [True, False]})
    )
    assert [type(column) for column in found.columns] == [NumberColumn, TimeColumn, StringColumn, NumberColumn]


def test_text_of_which_a_part_looks_like_numbers_is_text(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "CHUNK_ROWS", 500)
    codes = np.array(["007", "12"])[np.arange(3000) % 2].astype(object)
    codes[1100] = "A1"
    path = tmp_path / "fares.csv"
    frame(3000).assign(code=codes).to_csv(path, index=False)
    (known,) = [
        column
        for column in recorded.against_first(SampleFile(path, "at"), 0.5).baseline.columns
        if column.name == "code"
    ]
    assert known.watched == ("12", "007", "A1")


@pytest.mark.parametrize(
    ("content", "without", "words"),
    [
        (frame(1500), (), "a part of the sample, which has 1,500, has 750 rows"),
        (frame(3000), ("amout",), "no column 'amout' to leave out.*'amount'"),
        (frame(3000), ("amount", "city"), "no column is left"),
        (frame(3000).assign(odd=[[1]] * 3000), (), "leave it out with --without odd"),
    ],
)
def test_what_cannot_be_replayed_is_told(tmp_path, content, without, words):
    with pytest.raises(InvalidInputError, match=words):
        recorded.against_first(file(tmp_path, content), 0.5, without)
