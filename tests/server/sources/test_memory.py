import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.sources.combined_source import LastKnownState
from penstock_server.sources.source import Desired, WantedModel

WISH = Desired(models={"m/../é": WantedModel("1", "2", 0.25, "3")}, problems={"x": "y"})


def only_file(folder: Path) -> Path:
    (path,) = (path for path in folder.rglob("*") if path.is_file())
    return path


def test_each_source_is_remembered_for_itself(tmp_path: Path) -> None:
    memory = LastKnownState(tmp_path)
    memory.remember("mlflow http://../a", WISH)
    memory.remember("directory /b", Desired())
    assert LastKnownState(tmp_path).recall("mlflow http://../a") == WISH
    assert LastKnownState(tmp_path).recall("directory /b") == Desired()
    assert LastKnownState(tmp_path).recall("directory /c") is None


@given(raw=st.binary(max_size=100))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_ignored_with_a_reason(raw: bytes, tmp_path: Path) -> None:
    memory = LastKnownState(tmp_path)
    memory.remember("s", WISH)
    only_file(tmp_path).write_bytes(raw)
    with pytest.raises(InvalidInputError, match="is damaged and ignored"):
        memory.recall("s")


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_cut_or_changed_file_raises_nothing_else(data: st.DataObject, tmp_path: Path) -> None:
    memory = LastKnownState(tmp_path)
    memory.remember("s", WISH)
    raw = bytearray(only_file(tmp_path).read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    only_file(tmp_path).write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    with contextlib.suppress(InvalidInputError):
        memory.recall("s")


def test_a_weight_out_of_range_is_damage(tmp_path: Path) -> None:
    memory = LastKnownState(tmp_path)
    memory.remember("s", WISH)
    path = only_file(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"0.25", b"2.5"))
    with pytest.raises(InvalidInputError, match=r"damaged and ignored: the canary's weight is 2.5"):
        memory.recall("s")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="cannot be written"):
        LastKnownState(tmp_path / "file").remember("s", WISH)
