from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.tracing import layout, span_file
from penstock_server.tracing.span_file import SpanFile, SpanWriter

WORD = st.integers(0, (1 << 64) - 1)


@pytest.fixture
def file(tmp_path: Path) -> SpanFile:
    span_file.create(tmp_path / "spans", 3, 0.25)
    return SpanFile(tmp_path / "spans")


def write(writer: SpanWriter, span_id: int = 1, subject: int = 0) -> None:
    writer.write(
        kind=0, code=0, trace_id=7, parent_id=0, span_id=span_id, subject=subject, arrived_ns=1, ended_ns=2
    )  # fmt: skip


def spans(file: SpanFile, slot: int) -> list[int]:
    return [int(record[layout.RECORD_SPAN // 8]) for record in file.take(slot)]


def test_a_file_has_a_region_for_each_worker_and_says_what_is_traced(file: SpanFile) -> None:
    assert (file.workers, file.is_on, file.share) == (3, True, layout.PLACES // 4)
    file.set_sampling(is_on=False, share=1.0)
    assert (file.is_on, file.share) == (False, layout.PLACES)


@settings(max_examples=30)
@given(trace=st.integers(1, (1 << 128) - 1), parent=WORD, span=WORD, times=st.tuples(*[st.integers(0, 1 << 62)] * 5))
def test_a_record_is_read_as_it_was_written(
    tmp_path_factory: pytest.TempPathFactory, trace: int, parent: int, span: int, times: tuple[int, ...]
) -> None:
    path = tmp_path_factory.mktemp("spans") / "spans"
    span_file.create(path, 1, 0.0)
    file = SpanFile(path)
    arrived, began, features, infer, ended = times
    SpanWriter(file, 0).write(
        kind=3, code=14, trace_id=trace, parent_id=parent, span_id=span, subject=5, arrived_ns=arrived, ended_ns=ended,
        began_ns=began, features_ns=features, infer_ns=infer, rows=8, batch_rows=64,
    )  # fmt: skip
    ((kind, code, high, low, above, own, subject, *rest),) = file.take(0).view("u8").tolist()
    assert (kind, code, high << 64 | low, above, own, subject) == (3, 14, trace, parent, span, 5)
    assert rest == [arrived, began, features, infer, ended, 8, 64]


def test_each_record_is_taken_once_and_in_order(file: SpanFile) -> None:
    one, other = SpanWriter(file, 0), SpanWriter(file, 2)
    for number in range(5):
        write(one, number)
    write(other, 9)
    assert (spans(file, 0), spans(file, 1), spans(file, 2)) == ([0, 1, 2, 3, 4], [], [9])
    write(one, 5)
    assert (spans(file, 0), spans(file, 2)) == ([5], [])


def test_what_finds_no_room_is_counted(file: SpanFile) -> None:
    writer = SpanWriter(file, 1)
    for number in range(layout.RECORDS + 3):
        write(writer, number)
    assert file.counts() == (0, 0, 3)
    assert spans(file, 1) == list(range(layout.RECORDS))
    # Over the end of the ring.
    for number in range(10):
        write(writer, number)
    assert spans(file, 1) == list(range(10))


def test_a_worker_that_replaces_another_goes_on_behind_it(file: SpanFile) -> None:
    first = SpanWriter(file, 0)
    number = first.name(("m", "1", "champion"))
    write(first, 1, number)
    second = SpanWriter(file, 0)
    other = second.name(("n", "2", ""))
    write(second, 2, other)
    assert number != other
    assert [file.name(0, int(each[layout.RECORD_SUBJECT // 8])) for each in file.take(0)] == [
        ("m", "1", "champion"),
        ("n", "2", ""),
    ]


def test_names_are_given_again_last_of_all(file: SpanFile) -> None:
    writer = SpanWriter(file, 0)
    numbers = [writer.name((str(at),)) for at in range(layout.NAMES - 1)]
    assert len(set(numbers)) == layout.NAMES - 1
    assert writer.name(("one more",)) == 0
    writer.release(numbers[3])
    writer.release(numbers[1])
    assert [writer.name(("a",)), writer.name(("b",)), writer.name(("c",))] == [numbers[3], numbers[1], 0]
    assert file.name(0, numbers[3]) == ("a",)
    assert file.name(0, 0) == file.name(0, layout.NAMES) == file.name(0, -1) == ()


def test_a_long_name_is_cut(file: SpanFile) -> None:
    number = SpanWriter(file, 0).name(("é" * 400, "1", ""))
    (found,) = file.name(0, number)
    assert found.startswith("é" * 200)
    assert len(found.encode()) <= layout.NAME_BYTES + 2


def test_what_the_exporter_counts_is_seen(file: SpanFile) -> None:
    file.count(sent=3, failed=1)
    file.count(sent=2, failed=0)
    assert file.counts() == (5, 1, 0)


@pytest.mark.parametrize("change", [span_file.create, lambda path, *_: SpanFile(path)])
def test_a_file_that_is_there_or_is_not_is_an_error(tmp_path: Path, change: Callable[..., object]) -> None:
    path = tmp_path / "spans"
    if change is span_file.create:
        path.touch()
    with pytest.raises(OSError, match="spans"):
        change(path, 1, 0.0)
