import numpy as np
import pytest

from penstock_tools.calibration import delay, recorded
from penstock_tools.calibration.delay import Delay
from penstock_tools.calibration.rows import SampleFile
from tests.tools.calibration.shifted_rows import frame


def test_a_tilt_moves_the_shares_by_the_index():
    codes = np.random.default_rng(0).integers(0, 20, 20_000)
    usual = np.bincount(codes) / len(codes)
    for index in delay.INDEXES:
        moved = np.bincount(codes, delay.tilt(codes, 1, index))
        assert moved.sum() == pytest.approx(1)
        assert ((moved - usual) * np.log(moved / usual)).sum() == pytest.approx(index, rel=1e-6)


def test_blocks_are_moved_whole():
    codes = np.repeat(np.random.default_rng(0).integers(0, 4, 500), 50)
    weights = delay.tilt(codes, 50, 0.5)
    assert len(weights) == 500
    by_cell = [np.unique(weights[codes[::50] == cell]) for cell in range(4)]
    assert all(np.ptp(each) < 1e-12 for each in by_cell)
    assert [each[0] for each in by_cell] == sorted(each[0] for each in by_cell)


def test_one_value_cannot_shift():
    assert delay.tilt(np.zeros(1000, np.int64), 1, 0.25) is None


@pytest.mark.parametrize(("length", "least", "most"), [(1, 1, 1), (10, 8, 12), (50, 40, 60)])
def test_how_many_rows_are_alike_is_found(length, least, most):
    codes = np.repeat(np.random.default_rng(0).integers(0, 10, 50_000 // length), length)
    # Not in step with the looks.
    assert least <= delay.clump_rows(codes[7:]) <= most


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    path = tmp_path_factory.mktemp("sample") / "fares.parquet"
    frame(8000).assign(fixed=1.0).to_parquet(path)
    known = recorded.against_first(SampleFile(path, "at"), 0.75)
    done = []
    delays = delay.delays(
        known.reference, known.usual, indexes=(0.5, 1.0), runs=2, run_length=1000.0, advance=done.append
    )
    return dict(zip(known.reference.names, delays, strict=True)), sum(done)


def test_a_larger_shift_is_seen_sooner_and_its_beginning_is_known(found):
    delays, done = found
    assert done == delay.most_looks(2, 2)
    for name in ("amount", "city"):
        half, whole = delays[name]
        assert whole.rows <= 300
        assert whole.rows <= half.rows <= 1200
        assert whole.since_off <= 100


def test_a_column_of_one_value_has_no_delay(found):
    assert found[0]["fixed"] == (Delay(can_shift=False),) * 2


def test_rows_that_drift_already_have_no_delay(tmp_path):
    frame(8000, shift_from=4000).to_parquet(tmp_path / "fares.parquet")
    known = recorded.against_first(SampleFile(tmp_path / "fares.parquet", "at"), 0.5)
    ((amount,), (city,)) = delay.delays(known.reference, known.codes, indexes=(1.0,), runs=1)
    assert (amount.is_quiet, amount.rows) == (False, None)
    assert city.is_quiet


def test_of_many_rows_stretches_are_taken(monkeypatch):
    monkeypatch.setattr(delay, "MOST_ROWS", 5000)
    codes = np.arange(50_000, dtype=np.uint16).reshape(-1, 1)
    some = delay._some(codes)[:, 0].astype(int)
    assert len(some) == 5000
    assert (some[0], some[-1]) == (0, 49_999)
    assert (np.diff(some) == 1).sum() == 5000 - 5
