"""The functions of plain requests that Python calls by their addresses."""

from typing import Any, Final

from penstock_server.kernels.base import INT64, entry_point, kernel
from penstock_server.kernels.memory import word
from penstock_server.plain.kernels.fused import finish, learn_cost, serve
from penstock_server.plain.kernels.lanes import (
    answer,
    empty,
    end_batch,
    gather,
    give_up,
    missing_layout,
    pass_on,
    plan_of,
    sift,
)
from penstock_server.plain.kernels.scan import hashed, scan
from penstock_server.plain.layout import (
    NONE,
    T_SCRATCH,
    T_SKELETON,
    TO_LAY_OUT,
    U_ANSWERS,
    W_BATCH,
    W_COUNT,
    W_LAYOUT_COUNT,
    W_LAYOUTS,
    W_STATE,
)


def _entry(function: Any, count: int) -> Any:
    return entry_point(*[INT64] * count)(function.py_func)


@kernel
def look_up(state: int, data: int, size: int) -> int:
    """The plan for a message; 0 if it is plain and has none, -1 if it is not plain."""
    found = word(state + T_SCRATCH)
    if not scan(found, word(state + T_SKELETON), data, size):
        return -1
    return plan_of(state, found)


@kernel
def hash_of(data: int, size: int) -> int:
    """The hash by which bytes are found in the tables."""
    return hashed(data, size)


@kernel
def finish_batch(fused: int, features: int, infer: int) -> int:
    """Answers and counts the batch that the answers know, which Python has run."""
    answers = word(fused + U_ANSWERS)
    if (
        missing_layout(
            word(answers + W_BATCH), word(answers + W_COUNT), word(answers + W_LAYOUTS), word(answers + W_LAYOUT_COUNT)
        )
        != NONE
    ):
        return TO_LAY_OUT
    return finish(word(answers + W_STATE), fused, features, infer)


ENTRY_POINTS: Final = {
    "sift": _entry(sift, 4),
    "gather": _entry(gather, 6),
    "empty": _entry(empty, 4),
    "pass_on": _entry(pass_on, 5),
    "give_up": _entry(give_up, 2),
    "answer": _entry(answer, 1),
    "missing_layout": _entry(missing_layout, 4),
    "end_batch": _entry(end_batch, 3),
    "look_up": _entry(look_up, 3),
    "hash_of": _entry(hash_of, 2),
    "serve": _entry(serve, 3),
    "finish_batch": _entry(finish_batch, 3),
    "learn_cost": _entry(learn_cost, 4),
}
