"""The functions of the REST port that Python and the native transport call by their addresses."""

from typing import Any, Final

from penstock_server.kernels.base import INT64, entry_point, kernel
from penstock_server.kernels.memory import set_word, word
from penstock_server.rest.kernels.numbers import read_double, write_double
from penstock_server.rest.kernels.replies import body_of, reply
from penstock_server.rest.kernels.requests import forget_kept, form_at, try_form, turn
from penstock_server.rest.layout import F_CALLS, POWERS, R_ANSWERED_AT, R_CALL, R_FLAGS, R_FORM, TEXT_BYTES, TEXTS


def _entry(function: Any, count: int) -> Any:
    return entry_point(*[INT64] * count)(function.py_func)


@kernel
def message(state: int, form: int, data: int, size: int) -> int:
    """Makes the message of a request as the form at a number has it; as `requests.message_of`."""
    return try_form(state, form, data, size)


@kernel
def body(state: int, text: int, data: int, size: int) -> int:
    """Writes the body of an answer as the text at a number has it; as `replies.body_of`."""
    return body_of(state, word(state + TEXTS) + text * TEXT_BYTES, data, size)


@kernel
def release(state: int, connection: int) -> int:
    """Leaves a connection to Python; one more than the slot of the call that was begun for it, 0 for none."""
    found = word(connection + R_CALL)
    if found:
        form = form_at(state, word(connection + R_FORM))
        set_word(form + F_CALLS, word(form + F_CALLS) - 1)
    set_word(connection + R_CALL, 0)
    set_word(connection + R_FLAGS, 0)
    return found


@kernel
def forget(connection: int) -> int:
    """A connection is closed, or begins."""
    forget_kept(connection)
    set_word(connection + R_FLAGS, 0)
    set_word(connection + R_CALL, 0)
    set_word(connection + R_ANSWERED_AT, 0)
    return 0


@kernel
def number_read(state: int, data: int, size: int, place: int) -> int:
    """As `numbers.read_double`."""
    return read_double(word(state + POWERS), data, 0, size, place)


@kernel
def number_written(state: int, bits: int, out: int, place: int) -> int:
    """As `numbers.write_double`."""
    return write_double(word(state + POWERS), out, bits, place)


ENTRY_POINTS: Final = {
    "turn": _entry(turn, 1),
    "reply": _entry(reply, 4),
    "message": _entry(message, 4),
    "body": _entry(body, 4),
    "release": _entry(release, 2),
    "forget": _entry(forget, 1),
    "number_read": _entry(number_read, 4),
    "number_written": _entry(number_written, 4),
}
