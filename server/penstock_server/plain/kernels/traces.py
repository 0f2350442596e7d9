"""Which plain requests are traced, and the records of those that are; as `tracing.tracer` does it for others.

A call's `traceparent` is read as `tracing.context` reads it. A caller that has decided nothing costs a number at random.
"""

from penstock_server.kernels.base import kernel
from penstock_server.kernels.memory import copy, publish, set_word, uint8, word
from penstock_server.plain.kernels.draw import any_place, random_word
from penstock_server.plain.kernels.headers import find, value_at, value_size
from penstock_server.plain.layout import (
    H_EDGE_COUNT,
    H_EXEMPLARS,
    L_SUBJECT,
    LANE_BYTES,
    N_ARRIVED,
    N_LANE,
    N_ROWS,
    N_SPAN,
    N_TRACE_HIGH,
    N_TRACE_LOW,
    NONE,
    T_LANES,
    T_STREAMS,
    T_TRACES,
    TRACED_BYTES,
    X_KIND,
    X_PAGE,
    X_PARENT,
    X_REGION,
    X_SPAN,
    X_TRACE_HIGH,
    X_TRACE_LOW,
)
from penstock_server.tracing.layout import (
    ALL_IS_ON,
    ALL_SHARE,
    EXEMPLAR_BYTES,
    EXEMPLAR_TIME,
    EXEMPLAR_TRACE_HIGH,
    EXEMPLAR_TRACE_LOW,
    EXEMPLAR_VALUE,
    OF_CALL,
    OF_LOCAL_CALL,
    RECORD_ARRIVED,
    RECORD_BATCH_ROWS,
    RECORD_BEGAN,
    RECORD_BYTES,
    RECORD_CODE,
    RECORD_ENDED,
    RECORD_FEATURES,
    RECORD_INFER,
    RECORD_KIND,
    RECORD_PARENT,
    RECORD_ROWS,
    RECORD_SPAN,
    RECORD_SUBJECT,
    RECORD_TRACE_HIGH,
    RECORD_TRACE_LOW,
    RECORDS,
    RECORDS_AT,
    REGION_LOST,
    REGION_TAKEN,
    REGION_WRITTEN,
)
from penstock_server.transport.layout import (
    C_FLAGS,
    IS_CLOSED,
    IS_LOCAL,
    S_CONNECTION,
    S_FLAGS,
    STREAM_BYTES,
)

_NAME = b"traceparent"
_NAME_SIZE = len(_NAME)
_FIRST = int.from_bytes(_NAME[:8], "little")
_LAST = int.from_bytes(_NAME[-8:], "little")
_DASH = ord("-")
_ZERO = ord("0")
_NINE = ord("9")
_LETTER = ord("a")
_LAST_LETTER = ord("f")
_SIZE = 55
_TRACE_AT = 3
_SPAN_AT = 36
_FLAGS_AT = 53
_INVALID_VERSION = 0xFF
_SAMPLED = 1
NOT_SAMPLED = 0
SAMPLED = 1


@kernel
def digit(at: int) -> int:
    """The value of a hexadecimal digit; -1 if it is none, and an upper-case one is none."""
    letter = uint8(at)
    if _ZERO <= letter <= _NINE:
        return letter - _ZERO
    return letter - _LETTER + 10 if _LETTER <= letter <= _LAST_LETTER else NONE


@kernel
def byte_at(at: int) -> int:
    """The byte that two digits stand for; negative if one is none."""
    high, low = digit(at), digit(at + 1)
    return high << 4 | low if high >= 0 and low >= 0 else NONE


@kernel
def read_number(at: int, place: int) -> bool:
    """Writes the word that sixteen digits stand for; whether they are digits."""
    value = 0
    for number in range(16):
        found = digit(at + number)
        if found < 0:
            return False
        value = value << 4 | found
    set_word(place, value)
    return True


@kernel
def read_parent(traces: int, value: int, size: int) -> int:
    """Whether the caller traces its request, and then the numbers of its trace and span; `NONE` if it has decided nothing."""
    if size < _SIZE or uint8(value + 2) != _DASH or uint8(value + 35) != _DASH or uint8(value + 52) != _DASH:
        return NONE
    version, flags = byte_at(value), byte_at(value + _FLAGS_AT)
    if version < 0 or version == _INVALID_VERSION or flags < 0:
        return NONE
    if size > _SIZE and (version == 0 or uint8(value + _SIZE) != _DASH):
        return NONE
    if not flags & _SAMPLED:
        return NOT_SAMPLED
    if (
        not read_number(value + _TRACE_AT, traces + X_TRACE_HIGH)
        or not read_number(value + _TRACE_AT + 16, traces + X_TRACE_LOW)
        or not read_number(value + _SPAN_AT, traces + X_PARENT)
    ):
        return NONE
    has_trace = word(traces + X_TRACE_HIGH) != 0 or word(traces + X_TRACE_LOW) != 0
    return SAMPLED if has_trace and word(traces + X_PARENT) != 0 else NONE


@kernel
def decision(traces: int, row: int) -> int:
    """What the headers of a call say, as `read_parent` does; two values say nothing."""
    pair = find(row, _NAME_SIZE, _FIRST, _LAST)
    return read_parent(traces, value_at(pair), value_size(pair)) if pair > 0 else NONE


@kernel
def look(state: int, slot: int) -> None:
    """Finds out whether a call is traced: `X_SPAN` is its span then, and else 0."""
    traces = word(state + T_TRACES)
    set_word(traces + X_SPAN, 0)
    page = word(traces + X_PAGE)
    row = word(state + T_STREAMS) + slot * STREAM_BYTES
    connection = word(row + S_CONNECTION)
    if word(page + ALL_IS_ON) == 0 or connection == 0 or word(row + S_FLAGS) & IS_CLOSED:
        return
    found = decision(traces, row)
    if found == NOT_SAMPLED:
        return
    if found == NONE:
        if any_place(state) >= word(page + ALL_SHARE):
            return
        set_word(traces + X_TRACE_HIGH, random_word(state))
        set_word(traces + X_TRACE_LOW, random_word(state) | 1)
        set_word(traces + X_PARENT, 0)
    set_word(traces + X_KIND, OF_LOCAL_CALL if word(connection + C_FLAGS) & IS_LOCAL else OF_CALL)
    set_word(traces + X_SPAN, random_word(state) | 1)


@kernel
def keep(state: int, entry: int) -> None:
    """Has a request keep what was found of its call."""
    traces = word(state + T_TRACES)
    set_word(entry + N_SPAN, word(traces + X_SPAN) if traces else 0)
    if word(entry + N_SPAN):
        copy(entry + N_SPAN, traces + X_SPAN, TRACED_BYTES)


@kernel
def write_record(
    traces: int,
    lane: int,
    traced: int,
    code: int,
    arrived: int,
    began: int,
    features: int,
    infer: int,
    ended: int,
    rows: int,
    batch_rows: int,
) -> None:
    """Writes the record of a request, and lets the exporter take it; or counts that there is no room.

    `traced` is where its numbers are: in an entry from `N_SPAN` on, or from `X_SPAN` on.
    """  # fmt: skip
    region = word(traces + X_REGION)
    written = word(region + REGION_WRITTEN)
    if written - word(region + REGION_TAKEN) >= RECORDS:
        set_word(region + REGION_LOST, word(region + REGION_LOST) + 1)
        return
    record = region + RECORDS_AT + written % RECORDS * RECORD_BYTES
    set_word(record + RECORD_KIND, word(traced + X_KIND - X_SPAN))
    set_word(record + RECORD_CODE, code)
    set_word(record + RECORD_TRACE_HIGH, word(traced + X_TRACE_HIGH - X_SPAN))
    set_word(record + RECORD_TRACE_LOW, word(traced + X_TRACE_LOW - X_SPAN))
    set_word(record + RECORD_PARENT, word(traced + X_PARENT - X_SPAN))
    set_word(record + RECORD_SPAN, word(traced))
    set_word(record + RECORD_SUBJECT, word(lane + L_SUBJECT))
    set_word(record + RECORD_ARRIVED, arrived)
    set_word(record + RECORD_BEGAN, began)
    set_word(record + RECORD_FEATURES, features)
    set_word(record + RECORD_INFER, infer)
    set_word(record + RECORD_ENDED, ended)
    set_word(record + RECORD_ROWS, rows)
    set_word(record + RECORD_BATCH_ROWS, batch_rows)
    publish(region + REGION_WRITTEN, written + 1)


@kernel
def end_span(
    state: int, entry: int, code: int, began: int, features: int, infer: int, ended: int, batch_rows: int
) -> None:
    """Writes the record of a request that is traced, and forgets that it is."""
    lane = word(state + T_LANES) + word(entry + N_LANE) * LANE_BYTES
    rows = word(entry + N_ROWS) if began else 0
    write_record(
        word(state + T_TRACES), lane, entry + N_SPAN, code, word(entry + N_ARRIVED), began, features, infer, ended, rows,
        batch_rows,
    )  # fmt: skip
    set_word(entry + N_SPAN, 0)


@kernel
def end_unanswered(state: int, entry: int, code: int, now: int) -> None:
    """Writes the record of a request that gets no answer, if it is traced."""
    if word(entry + N_SPAN):
        end_span(state, entry, code, 0, 0, 0, now, 0)


@kernel
def end_refused(state: int, lane: int, code: int, now: int) -> None:
    """Writes the record of a call that is refused before it waits, if the one that was looked at last is traced."""
    traces = word(state + T_TRACES)
    if traces and word(traces + X_SPAN):
        write_record(traces, lane, traces + X_SPAN, code, now, 0, 0, 0, now, 0, 0)


@kernel
def put_exemplar(latency: int, stage: int, cell: int, entry: int, took: int, now: int) -> None:
    """Has a cell of a stage's durations show a request that is traced."""
    place = word(latency + H_EXEMPLARS) + (stage * (word(latency + H_EDGE_COUNT) + 1) + cell) * EXEMPLAR_BYTES
    publish(place + EXEMPLAR_TIME, 0)
    set_word(place + EXEMPLAR_TRACE_HIGH, word(entry + N_TRACE_HIGH))
    set_word(place + EXEMPLAR_TRACE_LOW, word(entry + N_TRACE_LOW))
    set_word(place + EXEMPLAR_VALUE, took)
    publish(place + EXEMPLAR_TIME, now)
