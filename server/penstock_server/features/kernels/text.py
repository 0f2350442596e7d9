"""The kernels that prepare texts: they lower letters, strip accents and white space, into scratch memory.

A character is decoded from UTF-8 and looked up in a table of `compiler.characters`; ASCII takes a byte and a look-up. Callers
have made room for the longest text that the mapping can give.
"""

from typing import Any

import numpy as np

from penstock_server.features.compiler import layout
from penstock_server.features.kernels.memory import Program
from penstock_server.kernels.base import inlined, kernel


@kernel
def point_at(text: Any, at: int, end: int) -> Any:
    """The code point at a position before `end`, and its bytes; U+FFFD and 1 where no valid UTF-8 begins."""
    first = np.int64(text[at])
    if first < layout.ASCII:
        return first, 1
    size = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
    if first < 0xC2 or first > 0xF4 or at + size > end:
        return layout.REPLACEMENT, 1
    point = first & 0x7F >> size
    for step in range(1, size):
        byte = np.int64(text[at + step])
        if byte & 0xC0 != 0x80:
            return layout.REPLACEMENT, 1
        point = point << 6 | byte & 0x3F
    if size == 3 and (point < 0x800 or 0xD800 <= point < 0xE000):
        return layout.REPLACEMENT, 1
    if size == 4 and not 0x10000 <= point < 0x110000:
        return layout.REPLACEMENT, 1
    return point, size


@kernel
def start_before(text: Any, start: int, at: int) -> int:
    """Where the character that ends at a position after `start` begins."""
    before = at - 1
    while before > start and at - before < 4 and np.int64(text[before]) & 0xC0 == 0x80:
        before -= 1
    _, size = point_at(text, before, at)
    return before if before + size == at else at - 1


@kernel
def entry_of(words: Any, mapping: int, point: int) -> Any:
    """A mapping's entry of a code point."""
    if point >= layout.POINTS:
        return words[mapping + layout.BEYOND]
    block = words[mapping + layout.MAPPING_WORDS + layout.ASCII + (point >> layout.BLOCK_SHIFT)]
    return words[block + (point & layout.BLOCK_POINTS - 1)]


@kernel
def is_final(words: Any, mapping: int, text: Any, start: int, at: int, end: int) -> bool:
    """Whether the sigma at a position ends a word for Python: a cased letter before it and none after, others passed over."""
    kind = layout.IS_IGNORED
    before = at
    while before > start and kind & layout.IS_IGNORED:
        here = before
        before = start_before(text, start, here)
        point, _ = point_at(text, before, here)
        kind = entry_of(words, mapping, point)
    if not kind & layout.IS_CASED:
        return False
    _, size = point_at(text, at, end)
    after, kind = at + size, layout.IS_IGNORED
    while after < end and kind & layout.IS_IGNORED:
        point, size = point_at(text, after, end)
        kind = entry_of(words, mapping, point)
        after += size
    return not kind & layout.IS_CASED


@kernel
def write_changed(program: Program, entry: int, target: Any, at: int) -> int:
    """Writes what a character of this entry becomes, and returns where that ends."""
    length, first = entry >> layout.LENGTH_AT & 0xFF, entry >> layout.TEXT_AT
    for offset in range(first, first + length):
        target[at] = np.uint64(program.words[offset >> 3]) >> np.uint64(8 * (offset & 7)) & np.uint64(0xFF)
        at += 1
    return at


@kernel
def write_point(
    program: Program, mapping: int, source: Any, start: int, at: int, end: int, target: Any, write: int
) -> Any:
    """Writes what the character at a position beyond ASCII becomes; returns its bytes and where what was written ends."""
    point, size = point_at(source, at, end)
    entry = entry_of(program.words, mapping, point)
    is_sigma = point == layout.SIGMA and program.words[mapping + layout.IS_LOWERING] != 0
    if is_sigma and entry >> layout.LENGTH_AT & 0xFF and is_final(program.words, mapping, source, start, at, end):
        target[write] = 0xCF
        target[write + 1] = 0x82
        return size, write + 2
    if entry & layout.IS_CHANGED:
        texts = program.words[mapping + layout.TEXTS]
        return size, write_changed(program, entry + (texts << layout.TEXT_AT + 3), target, write)
    if point == layout.REPLACEMENT:
        target[write] = 0xEF
        target[write + 1] = 0xBF
        target[write + 2] = 0xBD
        return size, write + 3
    for step in range(size):
        target[write + step] = source[at + step]
    return size, write + size


@kernel
def write_mapped(program: Program, mapping: int, source: Any, start: int, end: int, target: Any, write: int) -> int:
    """Writes a text with each character changed as the mapping says, and returns where it ends."""
    words = program.words
    changed = mapping + layout.MAPPING_WORDS
    at = start
    while at < end:
        byte = np.int64(source[at])
        if byte < layout.ASCII:
            target[write] = words[changed + byte]
            at += 1
            write += 1
        else:
            size, write = write_point(program, mapping, source, start, at, end, target, write)
            at += size
    return write


@kernel
def stripped(words: Any, mapping: int, text: Any, start: int, end: int, sides: int) -> Any:
    """The range of a text without the white space on these sides."""
    if sides & layout.LEFT:
        while start < end:
            point, size = point_at(text, start, end)
            if not entry_of(words, mapping, point) & layout.IS_BLANK:
                break
            start += size
    if sides & layout.RIGHT:
        while start < end:
            before = start_before(text, start, end)
            point, _ = point_at(text, before, end)
            if not entry_of(words, mapping, point) & layout.IS_BLANK:
                break
            end = before
    return start, end


@inlined
def class_of(words: Any, classes: int, point: Any) -> Any:
    """The class of a code point, by a table of classes."""
    if point >= layout.POINTS:
        return words[classes]
    block = words[classes + layout.CLASS_WORDS + (point >> layout.BLOCK_SHIFT)]
    word = words[block + ((point & layout.BLOCK_POINTS - 1) >> layout.WORD_SHIFT)]
    return word >> layout.CLASS_BITS * (point & layout.CLASSES_PER_WORD - 1) & (1 << layout.CLASS_BITS) - 1
