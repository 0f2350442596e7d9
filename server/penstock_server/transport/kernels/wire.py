"""What a turn of the reactor does with sockets: accepts, reads into nghttp2, and sends what it gives.

Every connection has a bound on what waits to be sent: nothing more is taken from nghttp2 before it has left, so a caller
that does not read stops its own streams. A connection ends when nghttp2 has nothing more to read or send, when its caller
ends it, or when it breaks; its streams then end for Python as if they had been reset.
"""

from collections.abc import Callable
from typing import Final

from penstock_server.kernels.base import INT32, INT64, UINT8, UINT32, call, external, kernel
from penstock_server.kernels.clock import clock_ns
from penstock_server.kernels.memory import (
    allocate,
    copy,
    int32,
    move,
    release,
    resize,
    set_uint32,
    set_word,
    uint32,
    word,
)
from penstock_server.transport.kernels.local import answer_call
from penstock_server.transport.kernels.session import (
    ENHANCE_YOUR_CALM,
    close_stream,
    consume_connection,
    consume_stream,
    flag,
    flagged,
    forget_node,
    forget_output,
    free_slot,
    hold,
    mark_dirty,
    pairs_of,
    push,
    push_connection,
    resume_data,
    submit_reset,
    submit_response,
    terminate,
    unflag,
)
from penstock_server.transport.layout import (
    ACCEPT_AT,
    ACCEPT_ERROR,
    AGE,
    BELL,
    BELL_DESCRIPTOR,
    C_ACCEPTED_AT,
    C_BEGUN,
    C_CLOSE_AT,
    C_DESCRIPTOR,
    C_FIRST,
    C_FLAGS,
    C_GO_AWAY_AT,
    C_IDLE_FRAMES,
    C_LAST_STREAM,
    C_PAUSE,
    C_PING_AT,
    C_READ_AT,
    C_RECEIVED_AT,
    C_REFUSED,
    C_RESETS,
    C_SERIAL,
    C_SESSION,
    C_STATE,
    C_STREAM_COUNT,
    C_UNSENT,
    C_UNSENT_AT,
    C_UNSENT_CAPACITY,
    C_UNSENT_SIZE,
    CALL,
    CALLBACKS,
    CLOSED,
    CONNECTION_BYTES,
    CONNECTION_END,
    CONNECTIONS,
    DIRTY,
    DIRTY_COUNT,
    DROP,
    E_DATA,
    E_KIND,
    E_SLOT,
    ENOUGH_EVENTS,
    EPOLL,
    EPOLL_DATA,
    EPOLL_EVENT_BYTES,
    EPOLL_EVENTS,
    EVENT_BYTES,
    EVENT_COUNT,
    EVENTS,
    EXPIRED,
    FREE_CONNECTION_COUNT,
    FREE_CONNECTIONS,
    GUEST,
    GUEST_READY,
    GUEST_STATE,
    GUEST_TURN,
    HAS_PREFACE,
    HEAD,
    HEAD_COUNT,
    HTTP1,
    HTTP1_SIZE,
    IGNORE,
    IS_ANSWERED,
    IS_BLOCKED,
    IS_CLOSED,
    IS_DEFERRED,
    IS_DIRTY,
    IS_EXPIRED,
    IS_IGNORED,
    IS_KNOWN,
    IS_LEAVING,
    IS_LOCAL,
    IS_OPEN,
    IS_PAUSED,
    IS_SUBMITTED,
    IS_TLS,
    KEEPALIVE,
    KEEPALIVE_TIMEOUT,
    LAST_CALLS,
    LISTENER_BYTES,
    LISTENER_COUNT,
    LISTENER_TABLE,
    LISTENERS,
    LOCAL_END,
    LOCAL_REPLY,
    MAGIC_BYTES,
    MAX_PAIRS,
    MAX_UNSENT_BYTES,
    MESSAGE,
    MOST_QUEUED,
    MOST_READ_PAUSE,
    MOST_REFUSED,
    MOST_TLS_READS,
    N_AT,
    N_NEXT,
    N_SIZE,
    NEVER,
    NODE_BYTES,
    NOW,
    O_AT,
    O_KIND,
    O_MORE,
    O_SIZE,
    O_SLOT,
    OPEN_CONNECTIONS,
    OPERATION_BYTES,
    OPTION,
    P_CONNECTIONS,
    P_LOOKED_AT,
    PAIR_BYTES,
    PAUSE,
    PORT_OWN,
    PORT_ROW_BYTES,
    PORT_TABLE,
    PORT_WORKERS,
    PREFACE_TIMEOUT,
    PREFIX_BYTES,
    READ_AT,
    READ_CALLBACK,
    READ_PAUSE,
    RECEIVE_BYTES,
    RECEIVED,
    REFUSE,
    RESET,
    RESETS_PER_LOOK,
    RESUME,
    S_CONNECTION,
    S_DEADLINE,
    S_FIRST_OUT,
    S_FLAGS,
    S_HELD,
    S_ID,
    S_LAST_OUT,
    S_NEXT,
    S_TRAILERS,
    S_TRAILERS_SIZE,
    SCRATCH,
    SECOND,
    SEND_BUFFER,
    SEND_BYTES,
    SEND_END,
    SEND_HEADERS,
    SEND_MESSAGE,
    SEND_REPLY,
    SETTING_COUNT,
    SETTINGS,
    SHUT_DOWN,
    SILENT_NS,
    STREAM_BYTES,
    STREAM_END,
    STREAMS,
    TLS_ACCEPTED,
    TLS_CLOSED,
    TLS_READABLE,
    TLS_READS,
    TLS_TO_SEND,
    TLS_WRITABLE,
    TURNS,
    UNSENT_CONNECTIONS,
    WINDOW,
)

_accept: Final[Callable[..., int]] = external("accept4", INT32, INT32, INT64, INT64, INT32)
_set_option: Final[Callable[..., int]] = external("setsockopt", INT32, INT32, INT32, INT32, INT64, INT32)
_receive: Final[Callable[..., int]] = external("recv", INT64, INT32, INT64, INT64, INT32)
_send: Final[Callable[..., int]] = external("send", INT64, INT32, INT64, INT64, INT32)
_close: Final[Callable[..., int]] = external("close", INT32, INT32)
_shutdown: Final[Callable[..., int]] = external("shutdown", INT32, INT32, INT32)
_read: Final[Callable[..., int]] = external("read", INT64, INT32, INT64, INT64)
_epoll_wait: Final[Callable[..., int]] = external("epoll_wait", INT32, INT32, INT64, INT32, INT32)
control: Final[Callable[..., int]] = external("epoll_ctl", INT32, INT32, INT32, INT32, INT64)
_poll: Final[Callable[..., int]] = external("ppoll", INT32, INT64, INT64, INT64, INT64)
_error: Final[Callable[..., int]] = external("__errno_location", INT64)

_new_session: Final[Callable[..., int]] = external("nghttp2_session_server_new2", INT32, INT64, INT64, INT64, INT64)
_delete_session: Final[Callable[..., int]] = external("nghttp2_session_del", INT32, INT64)
_submit_settings: Final[Callable[..., int]] = external("nghttp2_submit_settings", INT32, INT64, UINT8, INT64, INT64)
_set_window: Final[Callable[..., int]] = external(
    "nghttp2_session_set_local_window_size", INT32, INT64, UINT8, INT32, INT32
)
_take_in: Final[Callable[..., int]] = external("nghttp2_session_mem_recv", INT64, INT64, INT64, INT64)
_take_out: Final[Callable[..., int]] = external("nghttp2_session_mem_send", INT64, INT64, INT64)
_wants_read: Final[Callable[..., int]] = external("nghttp2_session_want_read", INT32, INT64)
_submit_ping: Final[Callable[..., int]] = external("nghttp2_submit_ping", INT32, INT64, UINT8, INT64)
_submit_notice: Final[Callable[..., int]] = external("nghttp2_submit_shutdown_notice", INT32, INT64)
_submit_go_away: Final[Callable[..., int]] = external(
    "nghttp2_submit_goaway", INT32, INT64, UINT8, INT32, UINT32, INT64, INT64
)
_queued: Final[Callable[..., int]] = external("nghttp2_session_get_outbound_queue_size", INT64, INT64)
_wants_write: Final[Callable[..., int]] = external("nghttp2_session_want_write", INT32, INT64)

_FIRST: Final = GUEST + 1
"""An epoll event's number of the first connection: those of the listeners, of the bell and of the guest come before."""
_EVENTS: Final = 256
READABLE: Final = 1
READABLE_ONCE: Final = 1 | 1 << 31
"""EPOLLET."""
_OUT: Final = 4
_HUNG_UP: Final = 16
_ADD: Final = 1
_MODIFY: Final = 3
_DELETE: Final = 2
_NON_BLOCKING: Final = 0o2004000
_QUIETLY: Final = 0x4040
"""MSG_NOSIGNAL and MSG_DONTWAIT."""
_DONT_WAIT: Final = 0x40
_TCP: Final = 6
_NO_DELAY: Final = 1
_AGAIN: Final = 11
_INTERRUPTED: Final = 4
_ABORTED: Final = 103
_NO_MORE_FILES: Final = (23, 24, 105, 12)
_BAD_PREFACE: Final = -903
_CANCEL: Final = 8
_INTERNAL_ERROR: Final = 2
_ACCEPTS_PER_TURN: Final = 64
_LOOK_AGAIN: Final = 2_000_000
"""How long a connection that waits is left to the other workers, before this one looks again."""
_LAST_READS: Final = 4
_READS_PER_FLUSH: Final = 4
"""As much as a stream's window, which is given back between them: else it would end at the turn's."""
_READS_PER_TURN: Final = 16
"""A MiB of a connection. What is left in a socket waits unseen, and so does the time that its calls have waited already."""


@kernel
def read_clock(state: int) -> int:
    now = clock_ns(word(state + SCRATCH))
    set_word(state + NOW, now)
    return now


@kernel
def watch(state: int, descriptor: int, how: int, interest: int, number: int) -> int:
    """Has epoll watch a descriptor."""
    place = word(state + SCRATCH)
    set_uint32(place, interest)
    set_word(place + EPOLL_DATA, number)
    return control(word(state + EPOLL), how, descriptor, place)


@kernel
def number_of(state: int, connection: int) -> int:
    return (connection - word(state + CONNECTIONS)) // CONNECTION_BYTES


@kernel
def close_socket(state: int, descriptor: int) -> None:
    """Closes a socket. What it received is read first: else the system breaks the connection, and what was sent is lost."""
    if descriptor < 0:
        return
    _shutdown(descriptor, 1)
    for _ in range(_LAST_READS):
        if _receive(descriptor, word(state + RECEIVED), RECEIVE_BYTES, _DONT_WAIT) <= 0:
            break
    _close(descriptor)


@kernel
def drop_unsent(state: int, connection: int) -> None:
    if word(connection + C_UNSENT):
        hold(state, connection, -word(connection + C_UNSENT_CAPACITY))
        release(word(connection + C_UNSENT))
    set_word(connection + C_UNSENT, 0)
    set_word(connection + C_UNSENT_SIZE, 0)
    set_word(connection + C_UNSENT_AT, 0)
    set_word(connection + C_UNSENT_CAPACITY, 0)


@kernel
def count_connections(state: int, change: int) -> None:
    """Counts a connection more or less, for the other workers too."""
    count = word(state + OPEN_CONNECTIONS) + change
    set_word(state + OPEN_CONNECTIONS, count)
    set_word(word(state + PORT_OWN) + P_CONNECTIONS, count)


@kernel
def end_connection(state: int, connection: int) -> None:
    """Closes a connection, and ends its streams."""
    flags = word(connection + C_FLAGS)
    if not flags & IS_OPEN:
        return
    row = word(connection + C_FIRST)
    while row:
        following = word(row + S_NEXT)
        close_stream(state, row, _CANCEL)
        row = following
    if word(connection + C_SESSION):
        _delete_session(word(connection + C_SESSION))
        set_word(connection + C_SESSION, 0)
    drop_unsent(state, connection)
    close_socket(state, INT32(word(connection + C_DESCRIPTOR)))
    set_word(connection + C_FLAGS, flags & IS_DIRTY)
    count_connections(state, -1)
    if flags & IS_TLS:
        push_connection(state, TLS_CLOSED, number_of(state, connection), 0)
    free = word(state + FREE_CONNECTION_COUNT)
    set_word(word(state + FREE_CONNECTIONS) + free * 8, number_of(state, connection))
    set_word(state + FREE_CONNECTION_COUNT, free + 1)


@kernel
def begin_session(state: int, connection: int) -> bool:
    """Begins HTTP/2 on a connection; false if there is no memory.

    Nothing is sent before the caller's preface has come: one that speaks HTTP/1 gets an answer that it can read.
    """
    place = word(state + SCRATCH)
    if _new_session(place, word(state + CALLBACKS), connection, word(state + OPTION)) != 0:
        return False
    session = word(place)
    set_word(connection + C_SESSION, session)
    _submit_settings(session, 0, word(state + SETTINGS), word(state + SETTING_COUNT))
    _set_window(session, 0, 0, INT32(word(state + WINDOW)))
    return True


@kernel
def is_its_turn(state: int) -> bool:
    """Whether this worker has no more connections than the mean of the workers that accept.

    One of them always has: so each connection has somebody to accept it, and from even numbers none gets two more than
    another. What others have just accepted may not be counted yet, which only leaves them more than they are thought to have.
    """
    own = word(state + PORT_OWN)
    connections, workers = 0, 0
    for number in range(word(state + PORT_WORKERS)):
        row = word(state + PORT_TABLE) + number * PORT_ROW_BYTES
        if row == own or word(state + NOW) - word(row + P_LOOKED_AT) < SILENT_NS:
            connections += word(row + P_CONNECTIONS)
            workers += 1
    return word(own + P_CONNECTIONS) * workers <= connections


@kernel
def is_readable(state: int, descriptor: int) -> bool:
    """Whether something waits at a descriptor now."""
    place = word(state + SCRATCH)
    set_uint32(place, descriptor)
    set_uint32(place + 4, READABLE)
    set_word(place + 8, 0)
    set_word(place + 16, 0)
    return _poll(place, 1, place + 8, 0) > 0


@kernel
def accept_at(state: int, when: int) -> None:
    """Has a turn look at the listeners at this time, or before."""
    set_word(state + ACCEPT_AT, min(word(state + ACCEPT_AT), when))


@kernel
def open_connection(state: int, descriptor: int, is_tls: bool) -> int:
    """The number of a row for a new connection; -1 if there is none, or no memory. Without a descriptor it has no socket."""
    free = word(state + FREE_CONNECTION_COUNT)
    if free == 0:
        return -1
    number = word(word(state + FREE_CONNECTIONS) + (free - 1) * 8)
    set_word(state + FREE_CONNECTION_COUNT, free - 1)
    connection = word(state + CONNECTIONS) + number * CONNECTION_BYTES
    serial = word(connection + C_SERIAL) + 1
    was_dirty = word(connection + C_FLAGS) & IS_DIRTY
    for at in range(0, CONNECTION_BYTES, 8):
        set_word(connection + at, 0)
    now = word(state + NOW)
    set_word(connection + C_STATE, state)
    set_word(connection + C_SERIAL, serial)
    set_word(connection + C_DESCRIPTOR, descriptor)
    set_word(connection + C_FLAGS, IS_OPEN | was_dirty | (IS_TLS if is_tls else 0))
    set_word(connection + C_ACCEPTED_AT, now)
    set_word(connection + C_RECEIVED_AT, now)
    set_word(connection + C_CLOSE_AT, NEVER)
    age = word(state + AGE)
    # A tenth more or less, so that connections that began together do not end together.
    spread = (now >> 8) * 2654435761 & 0xFFFF
    set_word(connection + C_GO_AWAY_AT, NEVER if age == 0 else now + age - age // 10 + age // 5 * spread // 65536)
    count_connections(state, 1)
    if number >= word(state + CONNECTION_END):
        set_word(state + CONNECTION_END, number + 1)
    if not begin_session(state, connection):
        end_connection(state, connection)
        return -1
    return number


@kernel
def begin_connection(state: int, descriptor: int, is_tls: bool) -> None:
    """Takes an accepted socket in; there is a free row for it."""
    number = open_connection(state, descriptor, is_tls)
    if number < 0:
        return
    place = word(state + SCRATCH)
    set_uint32(place, 1)
    _set_option(descriptor, _TCP, _NO_DELAY, place, 4)
    if watch(state, descriptor, _ADD, READABLE, number + _FIRST) != 0:
        end_connection(state, word(state + CONNECTIONS) + number * CONNECTION_BYTES)
    elif is_tls:
        push_connection(state, TLS_ACCEPTED, number, descriptor)


@kernel
def accept(state: int, descriptor: int, is_tls: bool) -> None:
    """Accepts what waits at a listener, as far as it is this worker's turn.

    epoll tells of each connection once. What is left in the socket, to others or for the next turn, is looked for again.
    """
    for _ in range(_ACCEPTS_PER_TURN):
        if not is_its_turn(state):
            if is_readable(state, descriptor):
                accept_at(state, word(state + NOW) + _LOOK_AGAIN)
            return
        if word(state + FREE_CONNECTION_COUNT) == 0:
            set_word(state + ACCEPT_ERROR, _NO_MORE_FILES[1])
            return
        accepted = _accept(INT32(descriptor), 0, 0, _NON_BLOCKING)
        if accepted >= 0:
            begin_connection(state, accepted, is_tls)
            continue
        error = int32(_error())
        if error == _AGAIN:
            return
        if error != _ABORTED and error != _INTERRUPTED:  # that caller is gone, and the next may wait
            set_word(state + ACCEPT_ERROR, error)
            return
    accept_at(state, word(state + NOW))


@kernel
def accept_all(state: int) -> None:
    """Looks at every listener for what was left there."""
    set_word(state + ACCEPT_AT, NEVER)
    for number in range(word(state + LISTENER_COUNT)):
        listener = state + LISTENER_TABLE + number * LISTENER_BYTES
        accept(state, word(listener), word(listener + 8) != 0)


@kernel
def feed(state: int, connection: int, data: int, size: int) -> bool:
    """Hands what was received to nghttp2; false if the connection is over."""
    session = word(connection + C_SESSION)
    taken = _take_in(session, data, size)
    begun = word(connection + C_BEGUN)
    if begun < MAGIC_BYTES:
        set_word(connection + C_BEGUN, begun + size)
    if taken >= 0:
        if word(connection + C_BEGUN) >= MAGIC_BYTES:
            mark_dirty(state, connection)
        return _queued(session) <= 2 * word(connection + C_STREAM_COUNT) + MOST_QUEUED
    if taken == _BAD_PREFACE and not word(connection + C_FLAGS) & IS_TLS:
        _send(INT32(word(connection + C_DESCRIPTOR)), word(state + HTTP1), word(state + HTTP1_SIZE), _QUIETLY)
        return False
    # A GOAWAY says why: nghttp2's own if it has made one; else it was asked for too much.
    terminate(session, ENHANCE_YOUR_CALM)
    flush(state, connection)
    return False


@kernel
def has_room(state: int) -> bool:
    """Whether one more is to be read in this turn. Its events have room, beside those of what TLS has not decrypted yet."""
    return word(state + EVENT_COUNT) <= ENOUGH_EVENTS and word(state + TLS_READS) < MOST_TLS_READS


@kernel
def read(state: int, connection: int) -> None:
    """Reads what there is on a connection."""
    for number in range(_READS_PER_TURN):
        if not has_room(state):
            return
        if number and number % _READS_PER_FLUSH == 0 and not flush(state, connection):  # gives its windows back
            end_connection(state, connection)
            return
        place = word(state + RECEIVED)
        size = _receive(INT32(word(connection + C_DESCRIPTOR)), place, RECEIVE_BYTES, _DONT_WAIT)
        if size < 0:
            error = int32(_error())
            if error != _AGAIN and error != _INTERRUPTED:
                end_connection(state, connection)
            return
        if size == 0:
            end_connection(state, connection)
            return
        set_word(connection + C_RECEIVED_AT, word(state + NOW))
        set_word(connection + C_PING_AT, 0)
        if not feed(state, connection, place, size):
            end_connection(state, connection)
            return
        if size < RECEIVE_BYTES:
            return


@kernel
def keep_unsent(state: int, connection: int, data: int, size: int) -> bool:
    """Keeps bytes that the socket, or TLS, has not taken yet; false if there is no memory."""
    at, have = word(connection + C_UNSENT_AT), word(connection + C_UNSENT_SIZE)
    place = word(connection + C_UNSENT)
    if at:
        move(place, place + at, have - at)
        have -= at
        set_word(connection + C_UNSENT_AT, 0)
    if have + size > word(connection + C_UNSENT_CAPACITY):
        capacity = max(2 * have, have + size)
        grown = resize(place, capacity)
        if grown == 0:
            return False
        place = grown
        hold(state, connection, capacity - word(connection + C_UNSENT_CAPACITY))
        set_word(connection + C_UNSENT, place)
        set_word(connection + C_UNSENT_CAPACITY, capacity)
    copy(place + have, data, size)
    set_word(connection + C_UNSENT_SIZE, have + size)
    return True


@kernel
def watch_again(state: int, connection: int) -> None:
    """Has epoll tell of a connection what is to be known of it now."""
    interest = _OUT if word(connection + C_FLAGS) & IS_BLOCKED else 0
    if word(connection + C_READ_AT) == 0:
        interest |= READABLE
    number = number_of(state, connection) + _FIRST
    watch(state, INT32(word(connection + C_DESCRIPTOR)), _MODIFY, interest, number)


@kernel
def stop_reading(state: int, connection: int) -> None:
    """Leaves what a connection sends in its socket for a moment: its calls would only be refused."""
    pause = min(max(2 * word(connection + C_PAUSE), READ_PAUSE), MOST_READ_PAUSE)
    set_word(connection + C_PAUSE, pause)
    set_word(connection + C_REFUSED, 0)
    set_word(connection + C_READ_AT, word(state + NOW) + pause)
    set_word(state + READ_AT, min(word(state + READ_AT), word(connection + C_READ_AT)))
    watch_again(state, connection)


@kernel
def read_again(state: int) -> None:
    """Has epoll tell again of the connections whose moment is over."""
    now, earliest = word(state + NOW), NEVER
    for number in range(word(state + CONNECTION_END)):
        connection = word(state + CONNECTIONS) + number * CONNECTION_BYTES
        when = word(connection + C_READ_AT)
        if when and word(connection + C_FLAGS) & IS_OPEN:
            if when <= now:
                set_word(connection + C_READ_AT, 0)
                watch_again(state, connection)
            else:
                earliest = min(earliest, when)
    set_word(state + READ_AT, earliest)


@kernel
def set_blocked(state: int, connection: int, is_blocked: bool) -> None:
    """Has epoll tell when the socket takes more, or no longer."""
    flags = word(connection + C_FLAGS)
    if (flags & IS_BLOCKED != 0) == is_blocked:
        return
    set_word(connection + C_FLAGS, flags ^ IS_BLOCKED)
    watch_again(state, connection)


@kernel
def push_out(connection: int, data: int, size: int) -> int:
    """Sends bytes; what the socket does not take now is kept. -1 if the connection is broken, else what was sent."""
    sent = _send(INT32(word(connection + C_DESCRIPTOR)), data, size, _QUIETLY)
    if sent < 0:
        error = int32(_error())
        if error != _AGAIN and error != _INTERRUPTED:
            return -1
        return 0
    return sent


@kernel
def gather(state: int, connection: int) -> int:
    """Puts nghttp2's next frames into the buffer for sending; how many bytes, -1 if the session fails."""
    buffer, size = word(state + SEND_BUFFER), 0
    place = word(state + SCRATCH)
    while size < SEND_BYTES:
        taken = _take_out(word(connection + C_SESSION), place)
        if taken < 0:
            return -1
        if taken == 0:
            break
        copy(buffer + size, word(place), taken)
        size += taken
    return size


@kernel
def flush_tls(state: int, connection: int) -> bool:
    """Keeps what is to be encrypted for Python."""
    before = word(connection + C_UNSENT_SIZE)
    while word(connection + C_UNSENT_SIZE) < MAX_UNSENT_BYTES:
        size = gather(state, connection)
        if size < 0:
            return False
        if size == 0:
            break
        if not keep_unsent(state, connection, word(state + SEND_BUFFER), size):
            return False
    if before == 0 and word(connection + C_UNSENT_SIZE):
        push_connection(state, TLS_TO_SEND, number_of(state, connection), 0)
    return True


@kernel
def flush(state: int, connection: int) -> bool:
    """Sends what a connection has to send; false if it is over."""
    if word(connection + C_FLAGS) & IS_TLS:
        if not flush_tls(state, connection):
            return False
        return word(connection + C_UNSENT_SIZE) != 0 or not is_over(connection)
    have = word(connection + C_UNSENT_SIZE)
    if have:
        at = word(connection + C_UNSENT_AT)
        sent = push_out(connection, word(connection + C_UNSENT) + at, have - at)
        if sent < 0:
            return False
        if at + sent < have:
            set_word(connection + C_UNSENT_AT, at + sent)
            set_blocked(state, connection, True)
            return True
        drop_unsent(state, connection)
    while True:
        size = gather(state, connection)
        if size < 0:
            return False
        if size == 0:
            break
        sent = push_out(connection, word(state + SEND_BUFFER), size)
        if sent < 0:
            return False
        if sent < size:
            if not keep_unsent(state, connection, word(state + SEND_BUFFER) + sent, size - sent):
                return False
            set_blocked(state, connection, True)
            return True
    set_blocked(state, connection, False)
    return not is_over(connection)


@kernel
def is_over(connection: int) -> bool:
    session = word(connection + C_SESSION)
    return _wants_read(session) == 0 and _wants_write(session) == 0


@kernel
def flush_all(state: int) -> None:
    """Flushes the connections that have something to send; ends those that are over."""
    # Ending one may add another to the list.
    done = 0
    while done < word(state + DIRTY_COUNT):
        connection = word(word(state + DIRTY) + done * 8)
        set_word(connection + C_FLAGS, word(connection + C_FLAGS) & ~IS_DIRTY)
        done += 1
        if word(connection + C_FLAGS) & IS_OPEN and not flush(state, connection):
            end_connection(state, connection)
    rest = word(state + DIRTY_COUNT) - done
    if done and rest:
        move(word(state + DIRTY), word(state + DIRTY) + done * 8, rest * 8)
    set_word(state + DIRTY_COUNT, rest)


@kernel
def release_events(state: int, handled: int) -> None:
    """Forgets the events that Python has handled, with the memory of their messages and the slots of ended streams."""
    events = word(state + EVENTS)
    for number in range(handled):
        event = events + number * EVENT_BYTES
        kind = word(event + E_KIND)
        if (kind == CALL or kind == MESSAGE) and word(event + E_DATA):
            release(word(event + E_DATA))
        elif kind == LOCAL_REPLY or kind == LOCAL_END:
            if word(event + E_DATA):
                release(word(event + E_DATA))
            free_slot(state, word(state + STREAMS) + word(event + E_SLOT) * STREAM_BYTES)
        elif kind == CLOSED:
            free_slot(state, word(state + STREAMS) + word(event + E_SLOT) * STREAM_BYTES)
        elif kind == TLS_READABLE:
            set_word(state + TLS_READS, word(state + TLS_READS) - 1)
    rest = word(state + EVENT_COUNT) - handled
    if handled and rest:
        move(events, events + handled * EVENT_BYTES, rest * EVENT_BYTES)
    set_word(state + EVENT_COUNT, rest)


@kernel
def reset(row: int, code: int) -> None:
    connection = word(row + S_CONNECTION)
    submit_reset(word(connection + C_SESSION), 0, INT32(word(row + S_ID)), code)


@kernel
def submit(state: int, row: int, pairs: int, count: int, has_body: bool) -> None:
    """Hands a stream's response headers to nghttp2."""
    flag(row, IS_SUBMITTED)
    session = word(word(row + S_CONNECTION) + C_SESSION)
    provider = 0
    if has_body:
        provider = word(state + SCRATCH) + MAX_PAIRS * PAIR_BYTES
        set_word(provider, row)
        set_word(provider + 8, word(state + READ_CALLBACK))
    if submit_response(session, INT32(word(row + S_ID)), pairs, count, provider) != 0:
        reset(row, _INTERNAL_ERROR)


@kernel
def append_message(state: int, row: int, data: int, size: int, is_compressed: int) -> bool:
    """Adds a message to what a stream has to send; false if there is no memory."""
    node = allocate(NODE_BYTES + PREFIX_BYTES + size)
    if node == 0:
        return False
    hold(state, word(row + S_CONNECTION), NODE_BYTES + PREFIX_BYTES + size)
    set_word(node + N_NEXT, 0)
    set_word(node + N_SIZE, PREFIX_BYTES + size)
    set_word(node + N_AT, 0)
    place = node + NODE_BYTES
    # Written from the lowest byte: the sizes are big-endian on the wire.
    high = (size >> 24 & 255) | (size >> 16 & 255) << 8 | (size >> 8 & 255) << 16 | (size & 255) << 24
    set_uint32(place, is_compressed | (high & 0xFFFFFF) << 8)
    set_uint32(place + 1, high)
    copy(place + PREFIX_BYTES, data, size)
    if word(row + S_LAST_OUT):
        set_word(word(row + S_LAST_OUT) + N_NEXT, node)
    else:
        set_word(row + S_FIRST_OUT, node)
    set_word(row + S_LAST_OUT, node)
    return True


@kernel
def resume(row: int) -> None:
    """Tells nghttp2 that a stream has more to send."""
    if flagged(row, IS_DEFERRED):
        unflag(row, IS_DEFERRED)
        resume_data(word(word(row + S_CONNECTION) + C_SESSION), INT32(word(row + S_ID)))


@kernel
def give_back(row: int) -> None:
    """Gives back to a stream's caller the room of what was held."""
    held = word(row + S_HELD)
    set_word(row + S_HELD, 0)
    if held:
        session = word(word(row + S_CONNECTION) + C_SESSION)
        consume_connection(session, held)
        consume_stream(session, INT32(word(row + S_ID)), held)


@kernel
def end_stream(state: int, row: int, data: int, size: int) -> None:
    """Ends a stream with these trailers, after what it still has to send."""
    if not flagged(row, IS_SUBMITTED):
        flag(row, IS_ANSWERED)
        submit(state, row, word(state + SCRATCH), pairs_of(data, size, word(state + SCRATCH)), False)
        return
    kept = allocate(max(size, 1))
    if kept == 0:
        reset(row, _INTERNAL_ERROR)
        return
    copy(kept, data, size)
    hold(state, word(row + S_CONNECTION), size)
    set_word(row + S_TRAILERS, kept)
    set_word(row + S_TRAILERS_SIZE, size)
    flag(row, IS_ANSWERED)
    resume(row)


@kernel
def drop_output(state: int, row: int) -> None:
    """Forgets the messages of which nothing is sent."""
    node = word(row + S_FIRST_OUT)
    if node == 0:
        return
    following = word(node + N_NEXT)
    if word(node + N_AT) == 0:
        forget_output(state, row)
        return
    set_word(node + N_NEXT, 0)
    set_word(row + S_LAST_OUT, node)
    while following:
        node, following = following, word(following + N_NEXT)
        forget_node(state, row, node)


@kernel
def do(state: int, row: int, kind: int, data: int, size: int, more: int) -> None:
    """Does one thing that Python wants of a stream. One that has its end takes nothing after it."""
    if (kind <= SEND_END or kind == REFUSE) and flagged(row, IS_ANSWERED):
        return
    connection = word(row + S_CONNECTION)
    if kind == REFUSE:
        set_word(connection + C_REFUSED, word(connection + C_REFUSED) + 1)
    elif kind != SEND_END:
        set_word(connection + C_REFUSED, 0)
        set_word(connection + C_PAUSE, 0)
    if kind == SEND_REPLY:
        if append_message(state, row, data, size, more):
            flag(row, IS_ANSWERED)
            submit(state, row, word(state + HEAD), word(state + HEAD_COUNT), True)
        else:
            reset(row, _INTERNAL_ERROR)
    elif kind == SEND_HEADERS:
        pairs = word(state + SCRATCH)
        submit(state, row, pairs, pairs_of(data, size, pairs), True)
    elif kind == SEND_MESSAGE:
        if append_message(state, row, data, size, more):
            resume(row)
        else:
            reset(row, _INTERNAL_ERROR)
    elif kind == SEND_END or kind == REFUSE:
        end_stream(state, row, data, size)
    elif kind == RESET:
        flag(row, IS_ANSWERED | IS_IGNORED)
        forget_output(state, row)
        reset(row, more)
    elif kind == PAUSE:
        flag(row, IS_PAUSED)
    elif kind == RESUME:
        unflag(row, IS_PAUSED)
        give_back(row)
    elif kind == DROP:
        drop_output(state, row)
    elif kind == IGNORE:
        flag(row, IS_IGNORED)
        unflag(row, IS_PAUSED)
        give_back(row)


@kernel
def do_all(state: int, operations: int, count: int, data: int) -> None:
    """Does what Python wants of streams, in order. Those that are gone are passed over."""
    for number in range(count):
        operation = operations + number * OPERATION_BYTES
        row = word(state + STREAMS) + word(operation + O_SLOT) * STREAM_BYTES
        connection = word(row + S_CONNECTION)
        if connection == 0 or flagged(row, IS_CLOSED):
            continue
        at = word(operation + O_AT)
        # Large messages lie elsewhere, and come with their address.
        place = -at if at < 0 else data + at
        if word(connection + C_FLAGS) & IS_LOCAL:
            answer_call(state, row, word(operation + O_KIND), place, word(operation + O_SIZE))
            continue
        do(state, row, word(operation + O_KIND), place, word(operation + O_SIZE), word(operation + O_MORE))
        mark_dirty(state, connection)
    flush_all(state)


@kernel
def expire(state: int, slot: int, now: int) -> None:
    """Tells Python once when a call's deadline has passed."""
    row = word(state + STREAMS) + slot * STREAM_BYTES
    if word(row + S_CONNECTION) == 0 or word(row + S_DEADLINE) > now:
        return
    flags = word(row + S_FLAGS)
    if flags & (IS_EXPIRED | IS_CLOSED | IS_ANSWERED):
        return
    # A call whose message is not whole yet is not handed on any more.
    ignored = 0 if flags & IS_KNOWN else IS_IGNORED
    set_word(row + S_FLAGS, flags | IS_EXPIRED | IS_KNOWN | ignored)
    push(state, EXPIRED, slot, 0, 0, flags, 0)


@kernel
def expire_all(state: int) -> None:
    """Looks for calls whose deadlines have passed."""
    now = read_clock(state)
    for slot in range(word(state + STREAM_END)):
        expire(state, slot, now)
    end = word(state + STREAM_END)
    while end and word(word(state + STREAMS) + (end - 1) * STREAM_BYTES + S_CONNECTION) == 0:
        end -= 1
    set_word(state + STREAM_END, end)


@kernel
def take_tls(state: int, number: int, interest: int) -> None:
    """Has Python read or write; what has no room now is ready in the next turn still."""
    if not interest & ~_OUT:
        push_connection(state, TLS_WRITABLE, number, interest)
    elif has_room(state):
        set_word(state + TLS_READS, word(state + TLS_READS) + 1)
        push_connection(state, TLS_READABLE, number, interest)


@kernel
def take_guest(state: int) -> None:
    """Has the guest's kernels take up what has come, and Python what they leave, or all if there are none."""
    turn = word(state + GUEST_TURN)
    if turn == 0 or call(turn, (word(state + GUEST_STATE),)) != 0:
        set_word(state + GUEST_READY, 1)


@kernel
def take_event(state: int, event: int) -> None:
    """Does what epoll says of one descriptor."""
    interest, number = uint32(event), word(event + EPOLL_DATA)
    if number < LISTENERS:
        listener = state + LISTENER_TABLE + number * LISTENER_BYTES
        if interest & _HUNG_UP:
            set_word(state + ACCEPT_ERROR, SHUT_DOWN)
        else:
            accept(state, word(listener), word(listener + 8) != 0)
        return
    if number == BELL:
        _read(INT32(word(state + BELL_DESCRIPTOR)), word(state + SCRATCH), 8)
        return
    if number == GUEST:
        take_guest(state)
        return
    number -= _FIRST
    connection = word(state + CONNECTIONS) + number * CONNECTION_BYTES
    flags = word(connection + C_FLAGS)
    if not flags & IS_OPEN:
        return
    if word(connection + C_REFUSED) >= MOST_REFUSED and word(connection + C_DESCRIPTOR) >= 0:
        stop_reading(state, connection)
        interest &= ~READABLE
    if flags & IS_TLS:
        if interest:
            take_tls(state, number, interest)
        return
    if interest & ~_OUT:
        read(state, connection)
    if interest & _OUT and word(connection + C_FLAGS) & IS_OPEN:
        mark_dirty(state, connection)


@kernel
def wait(state: int, timeout_ns: int) -> None:
    """Waits until epoll has something; its own wait knows no less than a millisecond."""
    if word(state + ACCEPT_AT) != NEVER:
        timeout_ns = max(0, min(timeout_ns, word(state + ACCEPT_AT) - read_clock(state)))
    if word(state + READ_AT) != NEVER:
        timeout_ns = max(0, min(timeout_ns, word(state + READ_AT) - read_clock(state)))
    place = word(state + SCRATCH)
    set_uint32(place, word(state + EPOLL))
    set_uint32(place + 4, READABLE)
    set_word(place + 8, timeout_ns // 1_000_000_000)
    set_word(place + 16, timeout_ns % 1_000_000_000)
    _poll(place, 1, place + 8, 0)


@kernel
def turn_once(state: int, handled: int, timeout_ns: int) -> int:
    """One turn: forgets what is handled, waits until something is there, reads, and sends. How many events there are."""
    release_events(state, handled)
    flush_all(state)
    if timeout_ns and word(state + EVENT_COUNT) == 0:
        wait(state, timeout_ns)
    if has_room(state):
        place = word(state + EPOLL_EVENTS)
        if word(state + READ_AT) != NEVER and word(state + READ_AT) <= read_clock(state):
            read_again(state)
        ready = _epoll_wait(INT32(word(state + EPOLL)), place, _EVENTS, 0)
        read_clock(state)
        if word(state + LISTENER_COUNT):
            set_word(word(state + PORT_OWN) + P_LOOKED_AT, word(state + NOW))
        # Another one is the first in each turn, since the last may have no room left.
        turns = word(state + TURNS) + 1
        set_word(state + TURNS, turns)
        for number in range(ready):
            take_event(state, place + (number + turns) % ready * EPOLL_EVENT_BYTES)
        if word(state + ACCEPT_AT) <= word(state + NOW):
            accept_all(state)
        flush_all(state)
    return word(state + EVENT_COUNT)


@kernel
def go_away(connection: int) -> None:
    """Says which streams are still answered. The connection ends with the last of them."""
    set_word(connection + C_FLAGS, word(connection + C_FLAGS) | IS_LEAVING)
    _submit_go_away(word(connection + C_SESSION), 0, INT32(word(connection + C_LAST_STREAM)), 0, 0, 0)


@kernel
def age(state: int, connection: int, now: int) -> None:
    """Asks an old connection to go away: first without a number, since calls may be on the wire, then with it."""
    if word(connection + C_FLAGS) & IS_LEAVING:
        go_away(connection)
        set_word(connection + C_GO_AWAY_AT, NEVER)
        set_word(connection + C_CLOSE_AT, now + word(state + LAST_CALLS))
    else:
        set_word(connection + C_FLAGS, word(connection + C_FLAGS) | IS_LEAVING)
        _submit_notice(word(connection + C_SESSION))
        set_word(connection + C_GO_AWAY_AT, now + SECOND)
    mark_dirty(state, connection)


@kernel
def look_after(state: int, connection: int, now: int) -> bool:
    """What a connection's time asks for; false if it is to end."""
    if word(connection + C_CLOSE_AT) <= now:
        return False
    flags = word(connection + C_FLAGS)
    if not flags & HAS_PREFACE:
        return now - word(connection + C_ACCEPTED_AT) <= word(state + PREFACE_TIMEOUT)
    set_word(connection + C_IDLE_FRAMES, 0)
    set_word(connection + C_RESETS, max(word(connection + C_RESETS) - RESETS_PER_LOOK, 0))
    pinged = word(connection + C_PING_AT)
    if pinged:
        if now - pinged > word(state + KEEPALIVE_TIMEOUT):
            return False
    elif now - word(connection + C_RECEIVED_AT) > word(state + KEEPALIVE):
        set_word(connection + C_PING_AT, now)
        _submit_ping(word(connection + C_SESSION), 0, 0)
        mark_dirty(state, connection)
    if word(connection + C_GO_AWAY_AT) <= now:
        age(state, connection, now)
    return True


@kernel
def look_after_all(state: int) -> None:
    """Looks after every connection: its preface, its pings, its age."""
    now = read_clock(state)
    unsent = 0
    for number in range(word(state + CONNECTION_END)):
        connection = word(state + CONNECTIONS) + number * CONNECTION_BYTES
        if word(connection + C_FLAGS) & IS_OPEN:
            if not look_after(state, connection, now):
                end_connection(state, connection)
            elif word(connection + C_UNSENT_SIZE):
                unsent += 1
    end = word(state + CONNECTION_END)
    while end and not word(word(state + CONNECTIONS) + (end - 1) * CONNECTION_BYTES + C_FLAGS) & IS_OPEN:
        end -= 1
    set_word(state + CONNECTION_END, end)
    set_word(state + UNSENT_CONNECTIONS, unsent)
    flush_all(state)


@kernel
def leave_idle(state: int) -> None:
    """Ends the connections without calls: the server drains."""
    for number in range(word(state + CONNECTION_END)):
        connection = word(state + CONNECTIONS) + number * CONNECTION_BYTES
        flags = word(connection + C_FLAGS)
        if flags & IS_OPEN and word(connection + C_STREAM_COUNT) == 0 and word(connection + C_UNSENT_SIZE) == 0:
            go_away(connection)
            mark_dirty(state, connection)
    flush_all(state)


@kernel
def end_all(state: int) -> None:
    """Ends every connection."""
    for number in range(word(state + CONNECTION_END)):
        end_connection(state, word(state + CONNECTIONS) + number * CONNECTION_BYTES)
