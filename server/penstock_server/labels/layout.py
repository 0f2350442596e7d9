"""The files of records for labels in bytes, as the kernels of plain requests and Python share them.

First comes a page of 64-bit words, then the places for records, each of `RECORD_BYTES`.
"""

from typing import Final


def _words(count: int) -> list[int]:
    return [8 * at for at in range(count)]


# The page: records written, those that the joiner has taken for good, those without room, and how many places there are.
(PAGE_WRITTEN, PAGE_TAKEN, PAGE_LOST, PAGE_PLACES) = _words(4)
PAGE_BYTES: Final = 4096
RECORD_BYTES: Final = 64
RECORD_NUMBER: Final = 56
"""The last word of a record of any kind: its number, from 1."""

# The record of an answered row, before its number.
(
    ANSWER_KEY, ANSWER_TIME, ANSWER_VERSION_ROLE, ANSWER_ROW, ANSWER_PREDICTION, ANSWER_SCORE, ANSWER_WEIGHT,
) = _words(7)  # fmt: skip
"""The key is the first 8 bytes of BLAKE2b of the id with the model's salt (`rollout.plan.salt_of`), as a little-endian number.
Then come the time of the answer in nanoseconds since 1970; the version's place in the table, and the role from `ROLE_SHIFT` on;
the row in its request; and three numbers of float64: the prediction (a class label as it is counted, or a number), the score
(the probability of the second of two classes, of more the largest; NaN for none), and the weight: with which probability the
version was chosen for the request, or NaN where the request named it and for a shadow."""
ROLE_SHIFT: Final = 32
(CHAMPION, CANARY, SHADOW, NAMED) = range(4)
"""The roles by number: that in which the version was chosen, or `NAMED` where the request said which version it wants."""
MOST_ROWS: Final = 256
"""Of a request; those behind it have no records."""
