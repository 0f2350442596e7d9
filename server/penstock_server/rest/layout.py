"""The tables that the REST port's kernels and its Python share: rows of 64-bit words in memory that never moves.

Both sides address a word as `row + WORD`, in bytes. Lengths are in bytes, times in nanoseconds on the monotonic clock; an
address of 0 is none.
"""

from typing import Final

WORD_BYTES: Final = 8


def _words(count: int) -> list[int]:
    return [WORD_BYTES * at for at in range(count)]


# The state of the port: one row.
(
    EPOLL, EPOLL_EVENTS, CONNECTIONS, CONNECTION_COUNT, RECEIVED, OUT, OUT_COUNT, FORMS, FORM_COUNT, TEXTS, TEXT_COUNT,
    MESSAGE, REPLY, POWERS, TRANSPORT, BEGIN, LOCAL, METHOD, UNSENT, UNSENT_COUNT, NUMBER, TIMING, HEADERS, HEAD, HEAD_BYTES,
) = _words(25)  # fmt: skip
"""`MESSAGE`, `REPLY`, `NUMBER`, `TIMING` and `HEADERS` are room for what is being made; `POWERS` as `powers` makes them.
`TRANSPORT` is the native transport's state, `BEGIN` its kernel that begins a call, `LOCAL` the connection of local calls.
`UNSENT` lists the descriptors of connections whose answer was not taken whole, `HEAD` begins an answer, up to its length."""
STATE_BYTES: Final = 26 * WORD_BYTES

# A connection, at its descriptor.
(R_FLAGS, R_CALL, R_FORM, R_ANSWERED_AT, R_KEPT, R_KEPT_BYTES, R_KEPT_AT) = _words(7)
"""`R_CALL` is one more than the slot of the call that kernels have begun for it, 0 for none. `R_KEPT` are bytes of a request
that is not whole, which has begun at `R_KEPT_AT`, or of an answer that is not sent."""
CONNECTION_BYTES: Final = 8 * WORD_BYTES
DESCRIPTORS: Final = 1 << 14
"""Connections with a higher descriptor are Python's alone."""
IS_FREE: Final = 1
"""Nothing of it is with Python: kernels may read it."""

# What a turn leaves to Python: five words each.
(E_DESCRIPTOR, E_HAPPENED, E_KIND, E_DATA, E_SIZE) = _words(5)
EVENT_BYTES: Final = 5 * WORD_BYTES
NOT_READ: Final = 0
"""Something has happened; `E_HAPPENED` is what epoll says."""
RECEIVED_BYTES: Final = 1
"""These bytes have come."""
NOT_SENT: Final = 2
"""These bytes of an answer are not sent."""
EVENTS: Final = 256
"""Of epoll in a turn."""
READ_BYTES: Final = 1 << 16
"""Read from a connection at a time."""
ROOM_BYTES: Final = 1 << 20
"""For all that is read in a turn."""
MOST_KEPT_BYTES: Final = 1 << 14
"""Of a request that is not whole; of a larger one Python takes care."""

# A form: what requests have in common.
(F_STEPS, F_COUNT, F_HEADERS, F_HEADERS_BYTES, F_TEXT, F_CALLS, F_KIND) = _words(7)
"""`F_TEXT` is the text that the last answer had, `F_CALLS` how many are in flight."""
FORM_BYTES: Final = 8 * WORD_BYTES

# A text: what replies have in common.
(X_PREFIX, X_PREFIX_BYTES, X_STEPS, X_COUNT, X_TAIL_BYTES, X_NAMES, X_KIND) = _words(7)
"""`X_TAIL_BYTES` are all raw contents at a reply's end, `X_NAMES` the names of the timing, each with its size."""
TEXT_BYTES: Final = 8 * WORD_BYTES
OF_TENSORS, OF_ROWS = 0, 1
"""Kinds of forms, and of the texts that answer them."""

# A step by which a request is read, or an answer written.
(S_KIND, S_DATA, S_SIZE, S_MORE) = _words(4)
STEP_BYTES: Final = 4 * WORD_BYTES
LITERAL: Final = 1
"""These bytes: they are to come, or are written."""
LENGTH: Final = 2
"""The digits of the body's length."""
BODY: Final = 3
"""Here the body begins."""
PUT: Final = 4
"""These bytes belong to the message."""
NUMBERS: Final = 5
"""So many numbers, of the kind that `S_MORE` says."""
STRINGS: Final = 6
"""So many texts, which are one tensor."""
IDENTIFIER: Final = 7
"""The request's id, without its quotes."""
TRACE: Final = 8
"""A `traceparent`, whose place in the headers is `S_DATA`."""
EXPECT: Final = 9
"""These bytes are to come in the reply."""
MICROSECONDS: Final = 10
"""One of the numbers of the timing."""
LARGEST: Final = 12
"""The largest of so many numbers, which come next."""
IDENTIFIED: Final = 11
"""What stands before the reply's id; nothing if it has none."""

KINDS: Final = {
    "FP32": 0,
    "FP64": 1,
    "INT8": 2,
    "INT16": 3,
    "INT32": 4,
    "INT64": 5,
    "UINT8": 6,
    "UINT16": 7,
    "UINT32": 8,
}
KIND_BYTES: Final = (4, 8, 1, 2, 4, 8, 1, 2, 4)
LOWEST: Final = (0, 0, -(1 << 7), -(1 << 15), -(1 << 31), -(1 << 62), 0, 0, 0)
HIGHEST: Final = (0, 0, (1 << 7) - 1, (1 << 15) - 1, (1 << 31) - 1, 1 << 62, (1 << 8) - 1, (1 << 16) - 1, (1 << 32) - 1)
"""Of whole numbers, as far as kernels read them."""
TRACE_BYTES: Final = 55
TIMINGS: Final = 3
MESSAGE_BYTES: Final = 1 << 16
REPLY_BYTES: Final = 1 << 13
HEAD_ROOM: Final = 128
"""Before an answer's body, for its head."""
HEADERS_BYTES: Final = 1 << 14
MOST_FORMS: Final = 128
MOST_TEXTS: Final = 128
NUMBER_BYTES: Final = 25
"""The longest that a number is written."""

LEAST_POWER: Final = -342
MOST_POWER: Final = 324
"""Of ten, in the table of powers."""
POWER_BYTES: Final = 4 * WORD_BYTES
"""The upper and lower 64 bits of two numbers: the power, rounded as reading numbers wants it, and as writing them does."""

SHORT: Final = -2
"""In place of a message's size: what came is the beginning of a request of this form."""
