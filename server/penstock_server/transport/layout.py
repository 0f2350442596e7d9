"""The tables that the native transport's kernels and its Python share: rows of 64-bit words in memory that never moves.

Both sides address a word as `row + WORD`, in bytes. A *slot* is a stream's row for the stream's life. Lengths are in bytes,
times in nanoseconds on the monotonic clock; an address of 0 is none.
"""

import platform
from typing import Final

WORD_BYTES: Final = 8


def _words(count: int) -> list[int]:
    return [WORD_BYTES * at for at in range(count)]


# The state of the transport: one row.
(
    CONNECTIONS, STREAMS, EVENTS, EVENT_COUNT, FREE_STREAMS, FREE_STREAM_COUNT, FREE_CONNECTIONS, FREE_CONNECTION_COUNT,
    DIRTY, DIRTY_COUNT, EPOLL, EPOLL_EVENTS, RECEIVED, SEND_BUFFER, SCRATCH, METHODS, METHOD_COUNT, MAX_MESSAGE,
    CALLBACKS, OPTION, SETTINGS, SETTING_COUNT, PARTIAL_BYTES, MAX_PARTIAL_BYTES, NOW, OPEN_STREAMS, OPEN_CONNECTIONS,
    STREAM_END, CONNECTION_END, READ_CALLBACK, HEAD, HEAD_COUNT, TRAILERS, TRAILER_COUNT, WINDOW, REFUSED_STREAMS,
    ACCEPT_ERROR, MAX_HEADERS, BELL_DESCRIPTOR, HTTP1, HTTP1_SIZE, KEEPALIVE, KEEPALIVE_TIMEOUT, PREFACE_TIMEOUT, AGE,
    LAST_CALLS, UNSENT_CONNECTIONS, TLS_READS,
) = _words(48)  # fmt: skip
LISTENER_TABLE: Final = 48 * WORD_BYTES
"""For each listener its descriptor, and whether it speaks TLS."""
LISTENER_BYTES: Final = 2 * WORD_BYTES
LISTENERS: Final = 8
_ACCEPTING: Final = LISTENER_TABLE + LISTENERS * LISTENER_BYTES
(
    LISTENER_COUNT,
    PORT_TABLE,
    PORT_WORKERS,
    PORT_OWN,
    ACCEPT_AT,
    TURNS,
    READ_AT,
    GUEST_READY,
    GUEST_STATE,
    GUEST_TURN,
    GUEST_REPLY,
) = (_ACCEPTING + at for at in _words(11))
"""The listeners that this worker accepts from now, its port's table and its row in it, when it looks for connections
that it left to others, when it reads again those that it has stopped to read, and whether the guest has something to do.

A guest may have kernels, at these addresses; 0 is none. `GUEST_TURN(GUEST_STATE)` takes up what has come, and how much it
leaves to Python; `GUEST_REPLY(GUEST_STATE, S_TAKER, message, size)` takes a reply, or says 0."""
BELL, GUEST = LISTENERS, LISTENERS + 1
"""The numbers by which epoll knows the bell and the guest; those of the listeners come before, of connections behind."""
SILENT_NS: Final = 250_000_000
"""A worker that has not looked for connections for so long hangs or is gone: nobody waits for it to accept. An idle one
looks every 50 ms."""
SHUT_DOWN: Final = 22
"""EINVAL, as `ACCEPT_ERROR`: what `accept` says of a socket that its owner has shut down."""
STATE_BYTES: Final = _ACCEPTING + 11 * WORD_BYTES

# A worker's row in its port's table, which all workers map: a cache line.
(P_CONNECTIONS, P_LOOKED_AT) = _words(2)
PORT_ROW_BYTES: Final = 64
BACKLOG: Final = 4096
"""How many connections may wait to be accepted; the system may allow fewer."""

# A connection.
(
    C_STATE, C_SESSION, C_DESCRIPTOR, C_FLAGS, C_FIRST, C_UNSENT, C_UNSENT_SIZE, C_UNSENT_AT, C_UNSENT_CAPACITY,
    C_RECEIVED_AT, C_ACCEPTED_AT, C_STREAM_COUNT, C_PING_AT, C_SERIAL, C_LAST_STREAM, C_IDLE_FRAMES, C_RESETS, C_CLOSE_AT,
    C_GO_AWAY_AT, C_BEGUN, C_PARTIAL_BYTES, C_REFUSED, C_READ_AT, C_PAUSE, C_CALLER, C_PEER,
) = _words(26)  # fmt: skip
CONNECTION_BYTES: Final = 26 * WORD_BYTES
"""`C_CALLER` and `C_PEER` are 0 at first: plain requests remember there who calls, by a header and by the certificate."""

IS_OPEN: Final = 1
IS_TLS: Final = 2
IS_DIRTY: Final = 4
"""In the list of connections to flush."""
IS_BLOCKED: Final = 8
"""The socket takes no more now: epoll tells when it does."""
HAS_PREFACE: Final = 32
"""It began as HTTP/2 does, up to its settings."""
IS_LEAVING: Final = 64
"""It was told to go away."""
IS_LOCAL: Final = 128
"""It has no socket and no session: calls from within the process belong to it."""

# A stream.
(
    S_CONNECTION, S_ID, S_FLAGS, S_METHOD, S_DEADLINE, S_ARRIVED, S_MESSAGE, S_CAPACITY, S_SIZE, S_EXPECTED, S_PREFIX,
    S_PREFIX_SIZE, S_HEADERS, S_HEADERS_CAPACITY, S_HEADERS_SIZE, S_NEXT, S_BEFORE, S_FIRST_OUT, S_LAST_OUT, S_TRAILERS,
    S_TRAILERS_SIZE, S_HELD, S_ENCODING, S_MESSAGES, S_SERIAL, S_SENT, S_TAKER,
) = _words(27)  # fmt: skip
"""`S_TAKER` is for whom a guest's kernels have begun a local call; 0 if Python has begun it."""
STREAM_BYTES: Final = 32 * WORD_BYTES

IS_KNOWN: Final = 1
"""Python has an object for it."""
IS_STREAMING: Final = 2
"""Its method takes or gives several messages."""
IS_ANSWERED: Final = 4
"""Its end is there, and perhaps not sent."""
IS_SUBMITTED: Final = 8
"""Its response headers are with nghttp2."""
IS_DEFERRED: Final = 16
"""nghttp2 waits for more to send."""
IS_HALF_CLOSED: Final = 32
"""The caller has sent all."""
IS_IGNORED: Final = 64
"""What still comes is thrown away."""
IS_PAUSED: Final = 128
"""What comes is not made room for: the caller's window closes."""
IS_COMPRESSED: Final = 256
"""Of the present message."""
IS_GRPC: Final = 512
IS_POST: Final = 1024
IS_CLOSED: Final = 2048
"""The stream is gone; its slot waits until Python has seen that."""
IS_EXPIRED: Final = 4096
HAS_BAD_TIMEOUT: Final = 8192

NO_METHOD: Final = -1
NO_MESSAGE: Final = -1
MANY_MESSAGES: Final = -2
"""In place of a message's size."""

# An event for Python: eight words.
(E_KIND, E_SLOT, E_DATA, E_SIZE, E_METHOD, E_DEADLINE, E_FLAGS, E_MORE) = _words(8)
EVENT_BYTES: Final = 8 * WORD_BYTES

CALL: Final = 1
"""A unary call with its message, or with none, or with several."""
OPENED: Final = 2
"""A streaming call, or a call whose method is not known: `E_METHOD` is -1."""
MESSAGE: Final = 3
"""A message of a stream."""
HALF_CLOSED: Final = 4
"""A stream's caller has sent all."""
CLOSED: Final = 5
"""A stream is gone; `E_MORE` is HTTP/2's error code."""
SENT: Final = 6
"""Messages of a stream have left, as many as `S_SENT`."""
REFUSED: Final = 7
"""A call that cannot be read; `E_MORE` says why."""
EXPIRED: Final = 8
"""A call's deadline has passed."""
TLS_ACCEPTED: Final = 9
TLS_READABLE: Final = 10
TLS_WRITABLE: Final = 11
TLS_TO_SEND: Final = 12
TLS_CLOSED: Final = 13

TAKEN: Final = 14
"""A call that plain requests have taken, whose message is theirs, or the end of one, which they have told its caller."""

LOCAL_REPLY: Final = 15
"""The message that answers a local call; `E_MORE` is its `S_TAKER`, and so is the next one's."""
LOCAL_END: Final = 16
"""The trailers that end a local call without one."""

# Why a call is refused.
TOO_LARGE: Final = 1
TOO_MUCH: Final = 2
BAD_PREFIX: Final = 3
BAD_HEADERS: Final = 4
NOT_GRPC: Final = 5
BAD_TIMEOUT: Final = 6

# What Python has the kernels do with a stream: five words each.
(O_KIND, O_SLOT, O_AT, O_SIZE, O_MORE) = _words(5)
OPERATION_BYTES: Final = 5 * WORD_BYTES

SEND_REPLY: Final = 1
"""The one message of a unary call, and status OK; no metadata of its own."""
SEND_HEADERS: Final = 2
SEND_MESSAGE: Final = 3
SEND_END: Final = 4
"""The trailers. Without headers and messages before them they are all that is sent."""
RESET: Final = 5
PAUSE: Final = 6
RESUME: Final = 7
IGNORE: Final = 8
DROP: Final = 9
"""Forgets the messages that are not sent."""
REFUSE: Final = 10
"""The trailers of a call that was refused since too much waits already; it is all that is sent."""

# A message that waits to be sent, followed by its bytes.
(N_NEXT, N_SIZE, N_AT) = _words(3)
NODE_BYTES: Final = 3 * WORD_BYTES

# A method: where its path is, and whether it streams.
(M_PATH, M_SIZE, M_STREAMS) = _words(3)
METHOD_BYTES: Final = 4 * WORD_BYTES

MAX_STREAMS: Final = 1 << 16
ENOUGH_EVENTS: Final = 1 << 14
"""With so many a turn reads no more: Python takes them up in some milliseconds, and then other work has its turn."""
MOST_TLS_READS: Final = 16
"""Connections that TLS decrypts in one turn; each may then bring as many events as a read does."""
MAX_EVENTS: Final = 1 << 20
OTHER_EVENTS: Final = 6 * MAX_STREAMS
"""Room that reads leave for what is no read's: the passed deadlines, sent messages and ends of all streams, and TLS."""
RECEIVE_BYTES: Final = 1 << 16
"""Read at a time."""
EVENTS_PER_READ: Final = 13_200
"""The most events that so many bytes can make: empty messages of five bytes."""
SEND_BYTES: Final = 1 << 18
"""Sent at a time."""
FRAME_BYTES: Final = 1 << 14
"""The largest frame that is sent is this and its header."""
MAX_UNSENT_BYTES: Final = 1 << 20
LEAST_SHARE_BYTES: Final = 1 << 16
"""Every connection may hold so many bytes, whatever others hold."""
MOST_IDLE_FRAMES: Final = 1_000
"""Frames that a caller may send between two looks and that bring nothing: pings, settings, priorities, empty data."""
MOST_RESETS: Final = 20_000
RESETS_PER_LOOK: Final = 100
"""Streams that a caller may reset, or have reset by an error of its own, at once and then between two looks."""
MOST_REFUSED: Final = 64
"""A connection is not read for `READ_PAUSE` when so many calls in a row were refused, and none was answered meanwhile."""
READ_PAUSE: Final = 2_000_000
MOST_READ_PAUSE: Final = 16_000_000
"""How long at first, and each time twice as long until a call is answered, up to this. Callers' next calls wait in the socket
meanwhile, so those that ask again at once do so less often. Pings and cancellations wait as long at most."""
MOST_QUEUED: Final = 1 << 14
"""Frames that nghttp2 may keep for a caller that does not read, beside two for each of its streams."""
MAGIC_BYTES: Final = 24
"""With these HTTP/2 begins. The server says nothing before them: who speaks HTTP/1 is answered in HTTP/1 alone."""
PREFIX_BYTES: Final = 5
MAX_PAIRS: Final = 200
PAIR_BYTES: Final = 40
"""nghttp2_nv: name, value, their lengths, flags."""
NEVER: Final = 1 << 62
EPOLL_EVENT_BYTES, EPOLL_DATA = (12, 4) if platform.machine() == "x86_64" else (16, 8)
"""The kernel's record of an event, which is packed on x86-64 alone."""
SECOND: Final = 1_000_000_000
