"""The functions that Python and nghttp2 call by their addresses."""

from typing import Any, Final

from penstock_server.kernels.base import INT32, INT64, UINT8, UINT32, entry_point, kernel
from penstock_server.kernels.memory import set_uint32, set_word, word
from penstock_server.transport.kernels.local import begin_call, cancel_call, open_local
from penstock_server.transport.kernels.session import (
    mark_dirty,
    on_begin_headers,
    on_close,
    on_data,
    on_frame_received,
    on_frame_sent,
    on_header,
    on_read,
)
from penstock_server.transport.kernels.wire import (
    READABLE,
    READABLE_ONCE,
    control,
    do_all,
    drop_unsent,
    end_all,
    end_connection,
    expire_all,
    feed,
    leave_idle,
    look_after_all,
    open_connection,
    set_blocked,
    turn_once,
)
from penstock_server.transport.layout import (
    C_FLAGS,
    C_PING_AT,
    C_RECEIVED_AT,
    C_UNSENT_AT,
    C_UNSENT_SIZE,
    CONNECTION_BYTES,
    CONNECTIONS,
    EPOLL,
    EPOLL_DATA,
    EVENT_COUNT,
    IS_OPEN,
    LISTENERS,
    NOW,
)


def _entry(function: Any, result: Any, *arguments: Any) -> Any:
    return entry_point(*arguments, result=result)(function.py_func)


@kernel
def turn(state: int, handled: int, timeout_ns: int) -> int:
    return turn_once(state, handled, timeout_ns)


@kernel
def do(state: int, operations: int, count: int, data: int) -> int:
    do_all(state, operations, count, data)
    return word(state + EVENT_COUNT)


@kernel
def look_after(state: int) -> int:
    expire_all(state)
    look_after_all(state)
    return word(state + EVENT_COUNT)


@kernel
def leave(state: int, is_final: int) -> int:
    if is_final:
        end_all(state)
    else:
        leave_idle(state)
    return word(state + EVENT_COUNT)


@kernel
def adopt(state: int) -> int:
    """Opens a connection without a socket: what `decrypted` gives it is received, and what it says waits to be encrypted."""
    return open_connection(state, -1, True)


@kernel
def decrypted(state: int, number: int, data: int, size: int) -> int:
    """Takes what TLS has decrypted of a connection; a size below 0 ends it."""
    connection = word(state + CONNECTIONS) + number * CONNECTION_BYTES
    if not word(connection + C_FLAGS) & IS_OPEN:
        return 0
    if size < 0:
        end_connection(state, connection)
    else:
        set_word(connection + C_RECEIVED_AT, word(state + NOW))
        set_word(connection + C_PING_AT, 0)
        if size and not feed(state, connection, data, size):
            end_connection(state, connection)
    return word(state + EVENT_COUNT)


@kernel
def encrypted(state: int, number: int, size: int) -> int:
    """Forgets so many bytes that TLS has sent of what was to be encrypted, and has the connection give more."""
    connection = word(state + CONNECTIONS) + number * CONNECTION_BYTES
    if word(connection + C_FLAGS) & IS_OPEN:
        at = word(connection + C_UNSENT_AT) + size
        set_word(connection + C_UNSENT_AT, at)
        if at >= word(connection + C_UNSENT_SIZE):
            drop_unsent(state, connection)
        mark_dirty(state, connection)
    return 0


@kernel
def block(state: int, number: int, is_blocked: int) -> int:
    """Has epoll tell when a connection's socket takes more, or no longer."""
    connection = word(state + CONNECTIONS) + number * CONNECTION_BYTES
    if word(connection + C_FLAGS) & IS_OPEN:
        set_blocked(state, connection, is_blocked != 0)
    return 0


@kernel
def watch_listener(state: int, place: int, how: int, descriptor: int, number: int) -> int:
    """Has epoll watch a listener or the bell, from any thread: the memory at `place` is the caller's.

    A listener tells of each connection once: a worker that leaves it to others is not woken for it without end.
    """
    set_uint32(place, READABLE_ONCE if number < LISTENERS else READABLE)
    set_word(place + EPOLL_DATA, number)
    return control(INT32(word(state + EPOLL)), INT32(how), INT32(descriptor), place)


ENTRY_POINTS: Final = {
    "on_begin_headers": _entry(on_begin_headers, INT32, INT64, INT64, INT64),
    "on_header": _entry(on_header, INT32, INT64, INT64, INT64, INT64, INT64, INT64, UINT8, INT64),
    "on_data": _entry(on_data, INT32, INT64, UINT8, INT32, INT64, INT64, INT64),
    "on_frame_received": _entry(on_frame_received, INT32, INT64, INT64, INT64),
    "on_frame_sent": _entry(on_frame_sent, INT32, INT64, INT64, INT64),
    "on_close": _entry(on_close, INT32, INT64, INT32, UINT32, INT64),
    "on_read": _entry(on_read, INT64, INT64, INT32, INT64, INT64, INT64, INT64, INT64),
    "turn": _entry(turn, INT64, INT64, INT64, INT64),
    "do": _entry(do, INT64, INT64, INT64, INT64, INT64),
    "look_after": _entry(look_after, INT64, INT64),
    "leave": _entry(leave, INT64, INT64, INT64),
    "open_local": _entry(open_local, INT64, INT64),
    "begin_call": _entry(begin_call, INT64, INT64, INT64, INT64, INT64, INT64, INT64, INT64, INT64),
    "cancel_call": _entry(cancel_call, INT64, INT64, INT64),
    "adopt": _entry(adopt, INT64, INT64),
    "decrypted": _entry(decrypted, INT64, INT64, INT64, INT64, INT64),
    "encrypted": _entry(encrypted, INT64, INT64, INT64, INT64),
    "block": _entry(block, INT64, INT64, INT64, INT64),
    "watch_listener": _entry(watch_listener, INT64, INT64, INT64, INT64, INT64, INT64),
}
