import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.rollout.progress import (
    MAX_TAG_BYTES,
    PROGRESS_TAG,
    HistoryEntry,
    Progress,
    is_out,
    read_history,
    read_progress,
    wanted,
    write_history,
    write_progress,
)
from penstock_server.rollout.spec import RolloutSpec, parse


def progress(status: str = "running", stage: int = 0, spec: RolloutSpec | None = None) -> Progress:
    return Progress(spec=spec or parse('{"shadow": "1h", "sample": 20}'), champion="1", status=status, stage=stage)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "stage", "aliases", "gone", "weight", "sample"),
    [
        ("running", 0, {"candidate", "shadow"}, {"canary"}, None, 20),
        ("running", 1, {"candidate", "canary"}, {"shadow"}, 5, None),
        ("paused", 3, {"candidate", "canary"}, {"shadow"}, 50, None),
        ("promoting", 3, {"champion", "candidate"}, {"canary", "shadow"}, None, None),
        ("promoted", 3, set(), {"candidate"}, None, None),
        ("rolled_back", 2, set(), {"canary", "shadow", "candidate"}, None, None),
        ("aborted", 1, set(), {"canary", "shadow", "candidate"}, None, None),
        ("refused", 0, set(), {"canary", "shadow", "candidate"}, None, None),
    ],
)
def test_what_the_registry_must_say(
    status: str, stage: int, aliases: set[str], gone: set[str], weight: float | None, sample: float | None
) -> None:
    found = wanted(progress(status, stage))
    assert (found.aliases, found.not_aliases) == (aliases, gone)
    assert (found.weight, found.sample) == (weight, sample)


def test_a_record_is_read_as_it_was_written() -> None:
    one = Progress(
        spec=parse('{"gates": {"p99": 2}}'), champion="1", status="running", stage=2, is_applied=True, began_s=1.5,
        since_s=2.5, bounds={"p99": 17}, reason="50 %: 25 % is through",
    )  # fmt: skip
    assert read_progress(write_progress(one)) == one
    assert len(write_progress(one).encode()) < MAX_TAG_BYTES


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"spec": {"steps": []}, "champion": "1", "status": "running"}', "[" * 5000,
     '{"spec": {}, "champion": "1", "status": "well"}', '{"spec": {}, "champion": "1", "status": "running", "format": 2}'],
)  # fmt: skip
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match=PROGRESS_TAG):
        read_progress(text)
    assert not is_out({PROGRESS_TAG: text})


@pytest.mark.parametrize(
    ("status", "out"),
    [("running", False), ("paused", False), ("promoted", False), ("rolled_back", True), ("aborted", True)],
)
def test_a_version_is_out_once_its_rollout_failed(status: str, out: bool) -> None:
    assert is_out({PROGRESS_TAG: write_progress(progress(status))}) is out
    assert not is_out({})


@given(st.lists(st.tuples(st.floats(0, 2e9), st.text(max_size=400)), max_size=40))
def test_a_history_keeps_its_newest_lines_and_fits_into_a_tag(lines: list[tuple[float, str]]) -> None:
    entries = [HistoryEntry(*line) for line in lines]
    text = write_history(entries)
    assert len(text.encode()) <= MAX_TAG_BYTES
    kept = read_history(text)
    assert kept == entries[len(entries) - len(kept) :]
    assert len(kept) >= min(len(entries), 1)


@pytest.mark.parametrize("text", ["", "{}", "[1]", "[[1]]", "null", "[" * 5000])
def test_a_damaged_history_is_empty(text: str) -> None:
    assert read_history(text) == []
