"""Which plain requests are traced, and the records of those that are; as `tracing.tracer` does it for others.

A call's `traceparent` is read as `tracing.context` reads it. A caller that has decided nothing costs a number at random.
"""

from penstock_server.kernels.base import kernel
from penstock_server.kernels.memory import publish, set_word, uint8, uint32, word
from penstock_server.plain.kernels.draw import any_place, random_word
from penstock_server.plain.layout import (
    H_EDGE_COUNT,
    H_EXEMPLARS,
    L_SUBJECT,
    LANE_BYTES,
    N_ARRIVED,
    N_KIND,
    N_LANE,
    N_PARENT,
    N_ROWS,
    N_SPAN,
    N_TRACE_HIGH,
    N_TRACE_LOW,
    NONE,
    T_LANES,
    T_STREAMS,
    T_TRACES,
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
    S_HEADERS,
    S_HEADERS_SIZE,
    STREAM_BYTES,
)

_NAME = b"traceparent"
_NAME_SIZE = len(_NAME)
_NAME_WORD = int.from_bytes(_NAME[:8], "little")
_NAME_REST = int.from_bytes(_NAME[3:], "little")
"""The last eight letters: both words together are the whole name."""
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
    at = word(row + S_HEADERS)
    end = at + word(row + S_HEADERS_SIZE)
    value = size = 0
    while at < end:
        name_size, value_size = uint32(at), uint32(at + 4)
        if name_size == _NAME_SIZE and word(at + 8) == _NAME_WORD and word(at + 11) == _NAME_REST:
            if value:
                return NONE
            value, size = at + 8 + name_size, value_size
        at += 8 + name_size + value_size
    return read_parent(traces, value, size) if value else NONE


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
    span = word(traces + X_SPAN) if traces else 0
    set_word(entry + N_SPAN, span)
    if span:
        set_word(entry + N_TRACE_HIGH, word(traces + X_TRACE_HIGH))
        set_word(entry + N_TRACE_LOW, word(traces + X_TRACE_LOW))
        set_word(entry + N_PARENT, word(traces + X_PARENT))
        set_word(entry + N_KIND, word(traces + X_KIND))


@kernel
def next_record(traces: int) -> int:
    """Where the next record is written; 0, and that is counted, if there is no room."""
    region = word(traces + X_REGION)
    written = word(region + REGION_WRITTEN)
    if written - word(region + REGION_TAKEN) >= RECORDS:
        set_word(region + REGION_LOST, word(region + REGION_LOST) + 1)
        return 0
    return region + RECORDS_AT + written % RECORDS * RECORD_BYTES


@kernel
def end_record(traces: int) -> None:
    """The exporter may take the record that was written."""
    region = word(traces + X_REGION)
    publish(region + REGION_WRITTEN, word(region + REGION_WRITTEN) + 1)


@kernel
def end_span(
    state: int, entry: int, code: int, began: int, features: int, infer: int, ended: int, batch_rows: int
) -> None:
    """Writes the record of a request that is traced, and forgets that it is."""
    traces = word(state + T_TRACES)
    record = next_record(traces)
    if record:
        lane = word(state + T_LANES) + word(entry + N_LANE) * LANE_BYTES
        set_word(record + RECORD_KIND, word(entry + N_KIND))
        set_word(record + RECORD_CODE, code)
        set_word(record + RECORD_TRACE_HIGH, word(entry + N_TRACE_HIGH))
        set_word(record + RECORD_TRACE_LOW, word(entry + N_TRACE_LOW))
        set_word(record + RECORD_PARENT, word(entry + N_PARENT))
        set_word(record + RECORD_SPAN, word(entry + N_SPAN))
        set_word(record + RECORD_SUBJECT, word(lane + L_SUBJECT))
        set_word(record + RECORD_ARRIVED, word(entry + N_ARRIVED))
        set_word(record + RECORD_BEGAN, began)
        set_word(record + RECORD_FEATURES, features)
        set_word(record + RECORD_INFER, infer)
        set_word(record + RECORD_ENDED, ended)
        set_word(record + RECORD_ROWS, word(entry + N_ROWS) if began else 0)
        set_word(record + RECORD_BATCH_ROWS, batch_rows)
        end_record(traces)
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
    if traces == 0 or word(traces + X_SPAN) == 0:
        return
    record = next_record(traces)
    if record:
        set_word(record + RECORD_KIND, word(traces + X_KIND))
        set_word(record + RECORD_CODE, code)
        set_word(record + RECORD_TRACE_HIGH, word(traces + X_TRACE_HIGH))
        set_word(record + RECORD_TRACE_LOW, word(traces + X_TRACE_LOW))
        set_word(record + RECORD_PARENT, word(traces + X_PARENT))
        set_word(record + RECORD_SPAN, word(traces + X_SPAN))
        set_word(record + RECORD_SUBJECT, word(lane + L_SUBJECT))
        set_word(record + RECORD_ARRIVED, now)
        for at in (RECORD_BEGAN, RECORD_FEATURES, RECORD_INFER, RECORD_ROWS, RECORD_BATCH_ROWS):
            set_word(record + at, 0)
        set_word(record + RECORD_ENDED, now)
        end_record(traces)


@kernel
def put_exemplar(latency: int, stage: int, cell: int, entry: int, took: int, now: int) -> None:
    """Has a cell of a stage's durations show a request that is traced."""
    place = word(latency + H_EXEMPLARS) + (stage * (word(latency + H_EDGE_COUNT) + 1) + cell) * EXEMPLAR_BYTES
    publish(place + EXEMPLAR_TIME, 0)
    set_word(place + EXEMPLAR_TRACE_HIGH, word(entry + N_TRACE_HIGH))
    set_word(place + EXEMPLAR_TRACE_LOW, word(entry + N_TRACE_LOW))
    set_word(place + EXEMPLAR_VALUE, took)
    publish(place + EXEMPLAR_TIME, now)
