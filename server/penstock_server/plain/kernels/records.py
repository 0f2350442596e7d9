"""The records of answered requests with an id, for labels that come later; as `prediction.records` writes them of others."""

from math import nan
from typing import Final

from penstock_server.kernels.base import kernel
from penstock_server.kernels.memory import double_at, publish_last, set_double, set_word, word
from penstock_server.labels.layout import (
    ANSWER_KEY,
    ANSWER_PREDICTION,
    ANSWER_ROW,
    ANSWER_SCORE,
    ANSWER_TIME,
    ANSWER_VERSION_ROLE,
    ANSWER_WEIGHT,
    MOST_ROWS,
    PAGE_BYTES,
    PAGE_LOST,
    PAGE_PLACES,
    PAGE_TAKEN,
    PAGE_WRITTEN,
    RECORD_BYTES,
    RECORD_NUMBER,
    ROLE_SHIFT,
)
from penstock_server.plain.kernels.counts import largest_of, number_at
from penstock_server.plain.kernels.draw import digest
from penstock_server.plain.layout import (
    A_DATA,
    B_DATA,
    BLOCK_BYTES,
    J_CLASS_OF_TEXT,
    J_HOW,
    J_KIND,
    J_OUTPUT,
    J_PREDICTIONS,
    J_RING,
    J_SALT,
    J_SCORE_KIND,
    J_SCORE_OUTPUT,
    J_SCORE_WIDTH,
    J_SCORES,
    J_VERSION,
    J_WIDTH,
    LABELS,
    LARGEST,
    N_DATA,
    N_ID_AT,
    N_ID_SIZE,
    N_KEY,
    N_PLAN,
    N_ROWS,
    NONE,
    OUTPUT_BYTES,
    P_ROLE,
    P_WEIGHT,
    PLAN_BYTES,
    T_BUFFERS,
    T_HASHING,
    T_PLANS,
)

_TWO: Final = 2


@kernel
def prediction_of(state: int, recording: int, outputs: int, row: int) -> float:
    """What was predicted for a row: the label of its class, or a number."""
    if word(recording + J_PREDICTIONS):
        return double_at(word(recording + J_PREDICTIONS) + 8 * row)
    how, output, kind = word(recording + J_HOW), word(recording + J_OUTPUT), word(recording + J_KIND)
    data, classes = word(outputs + output * OUTPUT_BYTES + A_DATA), word(recording + J_CLASS_OF_TEXT)
    if classes:
        # Its texts are spelled there, and the numbers that stand for them are still where the model wrote them.
        return word(classes + 8 * word(word(word(state + T_BUFFERS) + output * BLOCK_BYTES + B_DATA) + 8 * row))
    if how == LABELS:
        return word(data + 8 * row)
    if how == LARGEST:
        width = word(recording + J_WIDTH)
        return largest_of(data, kind, row * width, width) - row * width
    return number_at(data, kind, row)


@kernel
def score_of(recording: int, outputs: int, row: int) -> float:
    """The score of a row: a single one, the second of two, or the largest of more; NaN if it has none."""
    if word(recording + J_SCORES):
        return double_at(word(recording + J_SCORES) + 8 * row)
    output, kind, width = (
        word(recording + J_SCORE_OUTPUT),
        word(recording + J_SCORE_KIND),
        word(recording + J_SCORE_WIDTH),
    )
    if output == NONE:
        return nan
    data, first = word(outputs + output * OUTPUT_BYTES + A_DATA), row * width
    if width <= _TWO:
        return number_at(data, kind, first + width - 1)
    return number_at(data, kind, largest_of(data, kind, first, width))


@kernel
def record(state: int, recording: int, outputs: int, entry: int, start: int, now: int) -> None:
    """Writes the records of an answered request, whose rows begin at row `start` of the batch; all, or none and counts them."""
    if word(entry + N_ID_SIZE) == 0:
        set_word(entry + N_KEY, 0)
        return
    salt, hashing = recording + J_SALT, word(state + T_HASHING)
    key = digest(hashing, salt, word(entry + N_DATA) + word(entry + N_ID_AT), word(entry + N_ID_SIZE))
    set_word(entry + N_KEY, key)
    ring, rows = word(recording + J_RING), min(word(entry + N_ROWS), MOST_ROWS)
    written, places = word(ring + PAGE_WRITTEN), word(ring + PAGE_PLACES)
    if written + rows - word(ring + PAGE_TAKEN) > places:
        set_word(ring + PAGE_LOST, word(ring + PAGE_LOST) + rows)
        return
    plan = word(state + T_PLANS) + word(entry + N_PLAN) * PLAN_BYTES
    version = word(recording + J_VERSION) | word(plan + P_ROLE) << ROLE_SHIFT
    place = written % places
    for row in range(rows):
        if place == places:
            place = 0
        at = ring + PAGE_BYTES + place * RECORD_BYTES
        set_word(at + ANSWER_KEY, key)
        set_word(at + ANSWER_TIME, now)
        set_word(at + ANSWER_VERSION_ROLE, version)
        set_word(at + ANSWER_ROW, row)
        set_double(at + ANSWER_PREDICTION, prediction_of(state, recording, outputs, start + row))
        set_double(at + ANSWER_SCORE, score_of(recording, outputs, start + row))
        set_word(at + ANSWER_WEIGHT, word(plan + P_WEIGHT))
        publish_last(at + RECORD_NUMBER, written + row + 1)
        place += 1
    publish_last(ring + PAGE_WRITTEN, written + rows)
