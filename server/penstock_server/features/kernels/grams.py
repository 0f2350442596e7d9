"""The kernels of texts' grams: they count them, weigh the counts, and project these onto a few columns.

A text is prepared in scratch memory and split there. Counts are a dense array in scratch, zero between rows, with a list of the
columns that the row has: neither the text's length nor the vocabulary's size makes a row cost more than the grams in it.
"""

from typing import Any, Final, NamedTuple

import numpy as np

from penstock_server.features.compiler import layout
from penstock_server.features.kernels.hash import murmur_of
from penstock_server.features.kernels.memory import BatchMemory, Program, RowBlock, TextMemory
from penstock_server.features.kernels.string import are_equal, length_at, mixed_of
from penstock_server.features.kernels.text import class_of, point_at, write_mapped
from penstock_server.kernels.base import c_function, inlined, kernel

_log: Final = c_function("log")


class Counter(NamedTuple):
    """Where the grams of an encoder are counted: positions in the program and in scratch."""

    grams: int
    terms: int
    columns: int
    is_hashed: bool
    counts: int
    found: int
    values: int


@inlined
def counter_of(program: Program, memory: TextMemory, grams: int) -> Counter:
    words = program.words
    columns = words[grams + layout.GRAMS_COLUMNS]
    counts = memory.begin + layout.RING
    return Counter(
        grams,
        words[grams + layout.GRAMS_TERMS],
        columns,
        words[grams + layout.GRAMS_IS_HASHED] != 0,
        counts,
        counts + memory.columns,
        counts + 2 * memory.columns,
    )


@inlined
def find_term(words: Any, table: int, text: Any, start: int, length: int) -> Any:
    """The code of a term, or -1."""
    if length > words[table + layout.TERMS_LONGEST]:
        return np.int64(-1)
    mixed = mixed_of(text, start, length)
    mask = np.uint64(words[table + layout.TERMS_MASK])
    slots = np.uint64(table + layout.TERMS_WORDS)
    slot = mixed & mask
    while True:
        word = np.uint64(words[slots + slot])
        if word == np.uint64(0):
            return np.int64(-1)
        if word >> np.uint64(32) == mixed >> np.uint64(32):
            term = word & np.uint64(0xFFFFFFFF)
            head = words[term]
            is_as_long = head & (1 << layout.CODE_AT) - 1 == length
            if is_as_long and are_equal(words, term + np.uint64(1), text, start, length):
                return np.int64(head >> layout.CODE_AT)
        slot = (slot + np.uint64(1)) & mask


@inlined
def add(memory: TextMemory, counter: Counter, column: int, amount: int, distinct: int) -> int:
    """Adds to a column's count, which is kept doubled with its lowest bit set; returns how many columns the row has by now."""
    at = counter.counts + column
    count = memory.ints[at]
    if count == 0:
        memory.ints[counter.found + distinct] = column
        distinct += 1
        count = 1
    memory.ints[at] = count + 2 * amount
    return distinct


@kernel
def count_gram(program: Program, memory: TextMemory, counter: Counter, start: int, length: int, distinct: int) -> int:
    """Counts a gram; returns how many columns the row has by now."""
    if counter.is_hashed:
        hashed = murmur_of(memory.bytes, start, length)
        is_negative = hashed < 0 and program.words[counter.grams + layout.GRAMS_IS_SIGNED] != 0
        return add(memory, counter, abs(hashed) % counter.columns, -1 if is_negative else 1, distinct)
    code = find_term(program.words, counter.terms, memory.bytes, start, length)
    if 0 <= code < counter.columns:
        return add(memory, counter, code, 1, distinct)
    return distinct


@kernel
def token_after(program: Program, grams: int, text: Any, at: int, end: int) -> Any:
    """The next token from a position on: where it begins and ends; twice the end where there is none."""
    words = program.words
    classes, least = words[grams + layout.GRAMS_CLASSES], words[grams + layout.GRAMS_LEAST]
    run = words[grams + layout.GRAMS_RUN]
    while at < end:
        start, points, kinds = at, 0, layout.IS_TOKEN
        while at < end:
            point, size = np.int64(text[at]), 1
            if point >= layout.ASCII:
                point, size = point_at(text, at, end)
            kind = class_of(words, classes, point)
            if not kind & run:
                break
            kinds &= kind
            points += 1
            at += size
        if points >= least and kinds & layout.IS_TOKEN:
            return start, at
        while at < end:
            point, size = np.int64(text[at]), 1
            if point >= layout.ASCII:
                point, size = point_at(text, at, end)
            if class_of(words, classes, point) & run:
                break
            at += size
    return end, end


@kernel
def count_words(program: Program, memory: TextMemory, counter: Counter, start: int, end: int) -> int:
    """Counts the grams of words of a prepared text; returns how many columns the row has."""
    words, grams, text = program.words, counter.grams, memory.bytes
    shortest, longest = words[grams + layout.GRAMS_SHORTEST], words[grams + layout.GRAMS_LONGEST]
    distinct = held = 0
    write, at = start, start
    while True:
        first, at = token_after(program, grams, text, at, end)
        if first >= end:
            return distinct
        length = at - first
        if counter.terms:
            code = find_term(words, counter.terms, text, first, length)
            if code >= counter.columns:
                continue
            if shortest == 1 and code >= 0:
                distinct = add(memory, counter, code, 1, distinct)
        if shortest == 1 and counter.is_hashed:
            distinct = count_gram(program, memory, counter, first, length, distinct)
        if longest > 1:
            write = hold_token(memory, first, length, write, held)
            held += 1
            for size in range(max(shortest, 2), min(longest, held) + 1):
                begin = memory.ints[memory.begin + (held - size) % layout.RING]
                distinct = count_gram(program, memory, counter, begin, write - begin, distinct)


@kernel
def hold_token(memory: TextMemory, first: int, length: int, write: int, held: int) -> int:
    """Moves a token behind those that are held, with a space between, so that each gram is a range; returns where it ends.

    Something that is no token comes between two tokens, so there is room.
    """
    text = memory.bytes
    if held:
        text[write] = 0x20
        write += 1
    for offset in range(length):
        text[write + offset] = text[first + offset]
    memory.ints[memory.begin + held % layout.RING] = write
    return write + length


@inlined
def bytes_of(lead: Any) -> int:
    """The bytes of a character of valid UTF-8, by its first."""
    return 1 if lead < layout.ASCII else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


@kernel
def count_windows(
    program: Program, memory: TextMemory, counter: Counter, start: int, end: int, distinct: int, is_word: bool
) -> int:
    """Counts the grams of characters in a range; of a word that is shorter than the shortest, the word itself."""
    words, text = program.words, memory.bytes
    shortest = words[counter.grams + layout.GRAMS_SHORTEST]
    longest = words[counter.grams + layout.GRAMS_LONGEST]
    first = start
    while first < end:
        at, points = first, 0
        while points < longest and at < end:
            at += bytes_of(np.int64(text[at]))
            points += 1
            if points >= shortest:
                distinct = count_gram(program, memory, counter, first, at - first, distinct)
        if first == start and points < shortest:
            return count_gram(program, memory, counter, start, end - start, distinct) if is_word else distinct
        if points < shortest:
            return distinct
        first += bytes_of(np.int64(text[first]))
    return distinct


@kernel
def without_runs(words: Any, classes: int, text: Any, start: int, end: int) -> int:
    """Makes a space of each run of two or more characters of white space, and returns the end of the text."""
    at = write = start
    while at < end:
        point, size = point_at(text, at, end)
        after = at + size
        if class_of(words, classes, point) & layout.IS_SPACE:
            run = after
            while run < end:
                point, step = point_at(text, run, end)
                if not class_of(words, classes, point) & layout.IS_SPACE:
                    break
                run += step
            if run > after:
                text[write] = 0x20
                write += 1
                at = run
                continue
        while at < after:
            text[write] = text[at]
            write += 1
            at += 1
    return write


@kernel
def count_within(program: Program, memory: TextMemory, counter: Counter, start: int, end: int) -> int:
    """Counts the grams of characters of each word with a space on both sides; writes the spaces over the white space there."""
    words, text = program.words, memory.bytes
    classes = words[counter.grams + layout.GRAMS_CLASSES]
    distinct = 0
    at = word = start
    while at <= end:
        is_end, size = at == end, 0
        if not is_end:
            point, size = point_at(text, at, end)
            is_end = class_of(words, classes, point) & layout.IS_SPACE != 0
        if is_end:
            if at > word:
                text[word - 1] = 0x20
                text[at] = 0x20
                distinct = count_windows(program, memory, counter, word - 1, at + 1, distinct, True)
            word = at + max(size, 1)
        at += max(size, 1)
    return distinct


@kernel
def count_text(program: Program, memory: TextMemory, counter: Counter, start: int, end: int) -> int:
    """Counts the grams of a prepared text; returns how many columns the row has."""
    kind = program.words[counter.grams + layout.GRAMS_OF]
    if kind == layout.OF_WORDS:
        return count_words(program, memory, counter, start, end)
    if kind == layout.OF_CHARACTERS_WITHIN:
        return count_within(program, memory, counter, start, end)
    classes = program.words[counter.grams + layout.GRAMS_CLASSES]
    end = without_runs(program.words, classes, memory.bytes, start, end)
    return count_windows(program, memory, counter, start, end, 0, False)


@kernel
def norm_of(memory: TextMemory, kind: int, first: int, count: int) -> float:
    """The norm of a row's values; 1 where it is 0."""
    norm = 0.0
    for at in range(first, first + count):
        value = memory.reals[at]
        if kind == layout.L1:
            norm += abs(value)
        elif kind == layout.L2:
            norm += value * value
        else:
            norm = max(norm, abs(value))
    norm = np.sqrt(norm) if kind == layout.L2 else norm
    return 1.0 if norm == 0.0 else norm


@kernel
def weigh(program: Program, memory: TextMemory, counter: Counter, count: int) -> None:
    """Makes values of the row's counts, which become zero again, and weighs them in turn."""
    words, ints, reals = program.words, memory.ints, memory.reals
    is_binary = words[counter.grams + layout.GRAMS_IS_BINARY] != 0
    first = counter.values
    for at in range(count):
        column = counter.counts + ints[counter.found + at]
        reals[first + at] = 1.0 if is_binary else np.float64(ints[column] >> 1)
        ints[column] = 0
    step = counter.grams + layout.GRAMS_WORDS
    while words[step] != layout.WEIGH_END:
        kind, word = words[step], words[step + 1]
        if kind == layout.WEIGH_LOG:
            for at in range(first, first + count):
                reals[at] = 1.0 + _log(reals[at])
        elif kind == layout.WEIGH_SCALE:
            for at in range(count):
                reals[first + at] *= program.reals[word + ints[counter.found + at]]
        elif kind == layout.WEIGH_ABOVE:
            for at in range(first, first + count):
                reals[at] = 1.0 if reals[at] > program.reals[step + 1] else 0.0
        else:
            norm = norm_of(memory, word, first, count)
            for at in range(first, first + count):
                reals[at] /= norm
        step += layout.WEIGH_WORDS


@kernel
def project(program: Program, memory: TextMemory, counter: Counter, count: int) -> int:
    """Sums the row's values times the projection's rows; returns where in scratch the sums are."""
    words, reals = program.words, memory.reals
    width = words[counter.grams + layout.GRAMS_WIDTH]
    places, weights = words[counter.grams + layout.GRAMS_PLACES], words[counter.grams + layout.GRAMS_WEIGHTS]
    sums = counter.values + memory.columns
    for output in range(width):
        reals[sums + output] = 0.0
    for at in range(count):
        row = memory.ints[counter.found + at]
        if places:
            row = words[places + row]
        if row >= 0:
            value = reals[counter.values + at]
            source = weights + row * width
            for output in range(width):
                reals[sums + output] += value * program.reals[source + output]
    return sums


@kernel
def read_row(program: Program, batch: BatchMemory, counter: Counter, cursor: int) -> int:
    """Counts and weighs the grams of the text at a position of the request; returns how many columns it has."""
    memory = batch.text
    length = length_at(batch.strings, cursor)
    start = cursor + layout.LENGTH_BYTES
    first = 8 * (memory.begin + memory.state) + layout.PAD_BYTES
    mapping = program.words[counter.grams + layout.GRAMS_MAPPING]
    end = write_mapped(program, mapping, batch.strings, start, start + length, memory.bytes, first)
    count = count_text(program, memory, counter, first, end)
    weigh(program, memory, counter, count)
    return count


@kernel
def grams_block(program: Program, batch: BatchMemory, block: RowBlock, registers: Any, at: int, end: int) -> None:
    """`GRAMS`: the projection of each row's grams, or a register for each column."""
    words, memory = program.words, batch.text
    for entry in range(at, end, layout.ENTRY_WORDS[layout.GRAMS]):
        target, column = words[entry], words[entry + 1]
        counter = counter_of(program, memory, words[entry + 2])
        width = words[counter.grams + layout.GRAMS_WIDTH]
        if not width:
            for output in range(target, target + counter.columns):
                registers[output, : block.rows] = 0.0
        cursor = batch.cursors[batch.begin + column]
        for row in range(block.rows):
            count = read_row(program, batch, counter, cursor)
            if width:
                sums = project(program, memory, counter, count)
                for output in range(width):
                    registers[target + output, row] = memory.reals[sums + output]
            else:
                for place in range(count):
                    found = memory.ints[counter.found + place]
                    registers[target + found, row] = memory.reals[counter.values + place]
            cursor += layout.LENGTH_BYTES + length_at(batch.strings, cursor)
        batch.cursors[batch.begin + batch.strings_count + column] = cursor


@kernel
def grams_out(program: Program, batch: BatchMemory, block: RowBlock, at: int, end: int) -> None:
    """`GRAMS_OUT`: the values of each row's columns to their outputs, which are zero before."""
    words, memory = program.words, batch.text
    for entry in range(at, end, layout.ENTRY_WORDS[layout.GRAMS_OUT]):
        column, target, places = words[entry], words[entry + 1], words[entry + 3]
        counter = counter_of(program, memory, words[entry + 2])
        cursor = batch.cursors[batch.begin + column]
        for row in range(block.first, block.first + block.rows):
            count = read_row(program, batch, counter, cursor)
            for each in range(count):
                place = words[places + memory.ints[counter.found + each]]
                if place >= 0:
                    value = memory.reals[counter.values + each]
                    if batch.is_double:
                        batch.doubles[row, target + place] = value
                    else:
                        batch.singles[row, target + place] = np.float32(value)
            cursor += layout.LENGTH_BYTES + length_at(batch.strings, cursor)
        batch.cursors[batch.begin + batch.strings_count + column] = cursor
