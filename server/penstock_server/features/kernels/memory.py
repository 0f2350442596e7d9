"""The memory that the kernels of features see: a program, a batch of raw rows, and scratch for texts."""

from typing import Any, NamedTuple


class Program(NamedTuple):
    """One block of memory, seen as integers and as reals."""

    words: Any
    reals: Any


class TextMemory(NamedTuple):
    """Scratch memory for texts, seen as integers, as reals and as bytes.

    From the word `begin` on it has `state` words for what is counted, in `columns` columns at most, and then room for one text
    of the batch, prepared.
    """

    ints: Any
    reals: Any
    bytes: Any
    begin: int
    state: int
    columns: int


class BatchMemory(NamedTuple):
    """The raw rows of a batch, and where their features and counts go; `counts` are only touched when it `is_counting`.

    Of 2 ** `thinning` rows one is counted, by their place and the batch's `turn`: those of this block at `places`.
    The same output is seen as `singles` and as `doubles`; `is_double` says which one is right. From `begin` on, `cursors`
    hold where each of `strings_count` columns begins in this block of rows, and then where each begins in the next. `times`
    is the memory of `numbers` seen as integers: from `times_begin` on it holds the times, one column of `rows` after another.
    """

    rows: int
    numbers: Any
    times: Any
    times_begin: int
    strings: Any
    cursors: Any
    begin: int
    strings_count: int
    text: TextMemory
    singles: Any
    doubles: Any
    counts: Any
    refused: Any
    is_double: bool
    is_counting: bool
    is_recording: bool
    thinning: int
    turn: int
    places: Any


class RowBlock(NamedTuple):
    """The rows that run through the program together: the position of the first in the batch, and how many."""

    first: int
    rows: int
