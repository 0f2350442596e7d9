from pathlib import Path

import msgspec
import pytest

from penstock_server.retraining import state
from penstock_server.retraining.state import MOST_CALLS, ModelState, RetrainingCall, RetrainingState

CALL = RetrainingCall("a", "rule", "hook", "3", "abc", ("2", "3"), "since", 1.5)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "state.json"
    assert state.read(file) == RetrainingState()
    kept = RetrainingState({"fraud": ModelState("3", "abc", 1.0, rows=5, calls=(CALL,))})
    state.write(file, kept)
    assert state.read(file) == kept


def test_nothing_is_kept_without_a_file() -> None:
    state.write(None, RetrainingState())
    assert state.read(None) == RetrainingState()


@pytest.mark.parametrize("content", [b"", b"{", b'{"models": 3}', b"\xff"])
def test_a_damaged_file_begins_anew(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(content)
    assert state.read(file) == RetrainingState()


def test_a_call_is_replaced_in_its_place_and_the_oldest_go() -> None:
    one = ModelState()
    for at in range(MOST_CALLS + 5):
        one = one.replaced(msgspec.structs.replace(CALL, id=str(at)))
    assert (len(one.calls), one.calls[0].id) == (MOST_CALLS, "5")
    found = one.replaced(msgspec.structs.replace(CALL, id="7", outcome="sent"))
    assert [call.id for call in found.calls] == [call.id for call in one.calls]
    assert found.calls[2].outcome == "sent"
