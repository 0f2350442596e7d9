"""The file of traced requests that workers share with their exporter, in 64-bit words.

First comes a page for all; then, for each worker, a region that it alone writes and the exporter reads: counts, a ring of
records, and the names of what the records are about.
"""

from typing import Final

from penstock_server.call import HTTP, UNARY


def _words(count: int) -> list[int]:
    return [8 * at for at in range(count)]


# The page for all: whether anything is traced, and of the requests whose caller has decided nothing the share that is, in
# places of `PLACES`; then the spans that were sent, and those that were not since nobody took them.
(ALL_IS_ON, ALL_SHARE, ALL_SENT, ALL_FAILED) = _words(4)
PAGE_BYTES: Final = 4096
PLACES: Final = 1 << 53

# A worker's region: how many records were ever written, and how many taken; those for which there was no room; and the number
# of the name that is given next.
(REGION_WRITTEN, REGION_TAKEN, REGION_LOST, REGION_NAMED) = _words(4)
RECORDS_AT: Final = 64
RECORDS: Final = 4096

# A record. Times are in nanoseconds on the monotonic clock; what never began is 0.
(
    RECORD_KIND, RECORD_CODE, RECORD_TRACE_HIGH, RECORD_TRACE_LOW, RECORD_PARENT, RECORD_SPAN, RECORD_SUBJECT,
    RECORD_ARRIVED, RECORD_BEGAN, RECORD_FEATURES, RECORD_INFER, RECORD_ENDED, RECORD_ROWS, RECORD_BATCH_ROWS,
) = _words(14)  # fmt: skip
RECORD_WORDS: Final = 14
RECORD_BYTES: Final = RECORD_WORDS * 8
"""`RECORD_CODE` is gRPC's number. `RECORD_PARENT` is 0 for the first span of a trace. `RECORD_FEATURES` and `RECORD_INFER` are
durations. The kind of a record is how its request came, as `call` has it, or:"""
OF_CALL: Final = UNARY
OF_LOCAL_CALL: Final = HTTP
SHADOW: Final = 3
"""It is no request, but the shadow's run for one."""

NAMES_AT: Final = RECORDS_AT + RECORDS * RECORD_BYTES
NAMES: Final = 1024
NAME_BYTES: Final = 512
"""Two bytes with the length before it."""
REGION_BYTES: Final = NAMES_AT + NAMES * NAME_BYTES

CANCELLED: Final = 1
DEADLINE_EXCEEDED: Final = 4
UNAVAILABLE: Final = 14

# A traced request that a cell of a histogram shows: its trace, what was counted, in nanoseconds, and when, on the monotonic
# clock. The time is written last, and is 0 while the others change.
(EXEMPLAR_TRACE_HIGH, EXEMPLAR_TRACE_LOW, EXEMPLAR_VALUE, EXEMPLAR_TIME) = _words(4)
EXEMPLAR_WORDS: Final = 4
EXEMPLAR_BYTES: Final = EXEMPLAR_WORDS * 8
