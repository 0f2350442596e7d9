import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from penstock_server.drift.detector import Detector
from penstock_server.drift.keeping import MOST_AWAY, OTHERS_S, DetectorKeeper, Learnt, name_of
from tests.server.drift.test_detector import YEAR, Traffic, reference

KEY = ("m", "1")


@pytest.fixture
def traffic() -> Traffic:
    """That of a version with an alarm on, and unseen values before."""
    found = Traffic(reference(unseen=50))
    found.slices(60)
    found.slices(30, found.with_unseen(0.05))
    found.slices(40)
    assert found.slices(6, found.moved(0.5)).drifted
    return found


def fresh(known: Any) -> Detector:
    return Detector(known, known.minimum_effect, YEAR)


def learnt(traffic: Traffic, key: tuple[str, str]) -> Learnt:
    return Learnt(name_of(key, traffic.known), traffic.detector.to_arrays())


def look(detector: Detector, traffic: Traffic) -> Any:
    cells = np.array([traffic.rng.multinomial(100, one) for one in traffic.usual])
    return detector.look(cells, 999.0)


def test_a_restart_goes_on_from_where_it_was(tmp_path: Path, traffic: Traffic) -> None:
    DetectorKeeper(tmp_path).save(learnt(traffic, KEY))
    back = DetectorKeeper(tmp_path).back(KEY, reference(unseen=50), fresh(traffic.known))
    assert back.detected == traffic.detector.detected
    state = traffic.rng.bit_generator.state
    expected = look(traffic.detector, traffic)
    traffic.rng.bit_generator.state = state
    assert look(back, traffic) == expected
    np.testing.assert_array_equal(back.history.starts.cells, traffic.detector.history.starts.cells)


def test_a_roll_back_goes_on_without_a_folder(traffic: Traffic) -> None:
    keeper = DetectorKeeper(None)
    keeper.put_away(KEY, traffic.known, traffic.detector)
    assert keeper.back(KEY, traffic.known, fresh(traffic.known)) is traffic.detector
    new = fresh(traffic.known)
    assert keeper.back(KEY, traffic.known, new) is new


@pytest.mark.parametrize("key", [("m", "2"), ("n", "1")])
def test_another_version_begins_anew(tmp_path: Path, traffic: Traffic, key: tuple[str, str]) -> None:
    keeper = DetectorKeeper(tmp_path)
    keeper.save(keeper.put_away(KEY, traffic.known, traffic.detector))
    new = fresh(traffic.known)
    assert keeper.back(key, traffic.known, new) is new
    assert not new.detected.drifted


def test_other_training_rows_begin_anew(tmp_path: Path, traffic: Traffic) -> None:
    keeper, other = DetectorKeeper(tmp_path), reference(unseen=51)
    keeper.save(keeper.put_away(KEY, traffic.known, traffic.detector))
    assert name_of(KEY, other) != name_of(KEY, traffic.known) == name_of(KEY, reference(unseen=50))
    assert not keeper.back(KEY, other, fresh(other)).detected.drifted


@pytest.mark.long
@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"\x93NUMPY", None])
def test_a_damaged_file_is_told_and_begins_anew(tmp_path: Path, traffic: Traffic, damage: bytes | None) -> None:
    keeper = DetectorKeeper(tmp_path)
    keeper.save(learnt(traffic, KEY))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-700] if damage is None else damage)
    with capture_logs() as logs:
        found = keeper.back(KEY, traffic.known, fresh(traffic.known))
    assert not found.detected.drifted
    assert [entry["event"] for entry in logs] == ["kept drift cannot be read; it begins anew"]


def test_arrays_of_other_shapes_are_refused(traffic: Traffic) -> None:
    arrays = traffic.detector.to_arrays()
    for name, wrong in (
        ("cells", arrays["cells"][:, :1]),
        ("began_s", arrays["began_s"][1:]),
        ("level", arrays["level"] + 99),
        ("forgotten_s", arrays["forgotten_s"][:, :1]),
        ("alarm_of", arrays["alarm_of"] + 9),
        ("alarm", arrays["alarm"][:, :2]),
    ):
        detector = fresh(traffic.known)
        with pytest.raises(ValueError, match=r"expected|alarm"):
            detector.restore({**arrays, name: wrong})
        assert not detector.detected.drifted


def test_memory_is_bounded(traffic: Traffic) -> None:
    keeper = DetectorKeeper(None)
    for at in range(MOST_AWAY + 1):
        keeper.put_away(("m", str(at)), traffic.known, fresh(traffic.known))
    new = fresh(traffic.known)
    assert keeper.back(("m", "0"), traffic.known, new) is new
    assert keeper.back(("m", "1"), traffic.known, new) is not new


def test_old_files_are_swept(tmp_path: Path, traffic: Traffic) -> None:
    now_s, kept_s = 2 * OTHERS_S, 500.0
    ages = {"own": (kept_s + 1, kept_s - 1), "other": (OTHERS_S + 1, OTHERS_S - 1)}
    for address, each in ages.items():
        keeper = DetectorKeeper(tmp_path / address)
        for at, age_s in enumerate(each):
            keeper.save(learnt(traffic, ("m", str(at))))
            path = tmp_path / address / f"{name_of(('m', str(at)), traffic.known)}.npz"
            os.utime(path, (now_s - age_s, now_s - age_s))
    DetectorKeeper(tmp_path / "own").sweep(now_s, kept_s)
    kept = {path.relative_to(tmp_path) for path in tmp_path.glob("*/*")}
    name = f"{name_of(('m', '1'), traffic.known)}.npz"
    assert kept == {Path("own") / name, Path("other") / name}
    DetectorKeeper(tmp_path / "missing" / "own").sweep(now_s, kept_s)


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path, traffic: Traffic) -> None:
    (tmp_path / "file").write_text("")
    with capture_logs() as logs:
        DetectorKeeper(tmp_path / "file" / "below").save(learnt(traffic, KEY))
    assert [entry["event"] for entry in logs] == ["drift cannot be kept"]
