"""Turns an encoder of grams into an instruction, and what it reads into data: characters, terms, weights and the projection.

`lower` calls it for each block of a text whose encoder is `Grams`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from penstock_server.features.compiler import characters, layout
from penstock_server.features.compiler.columns import CodedColumn, MatrixColumn
from penstock_server.features.compiler.instructions import Draft, Entry, Value, bits
from penstock_server.features.spec.grams import (
    Above,
    Accents,
    CharacterGrams,
    Grams,
    Norm,
    Scale,
    Vocabulary,
    WordGrams,
)

_NORMS = {"l1": layout.L1, "l2": layout.L2, "max": layout.MAX}


@dataclass(eq=False, slots=True)
class GramsColumns:
    """A column for each term or bucket of an encoder, few of which a row has: as outputs they take no registers."""

    position: int
    grams: int
    width: int
    made: tuple[Value, ...] | None = field(default=None, repr=False)

    def make(self, draft: Draft) -> tuple[Value, ...]:
        """Its columns as values; the instruction that makes them is appended once."""
        if self.made is None:
            self.made = draft.new(self.width)
            draft.append(layout.GRAMS, [Entry((), self.made, (self.position, self.grams))])
        return self.made

    def write(self, draft: Draft, columns: Sequence[int], output: int) -> None:
        """Writes some of its columns, each once, to outputs side by side from `output` on."""
        places = np.full(self.width, -1)
        places[np.asarray(columns)] = np.arange(len(columns))
        words = (self.position, output, self.grams, draft.put(places))
        draft.append(layout.GRAMS_OUT, [Entry((), (), words)])


def lower_grams(draft: Draft, position: int, encode: Grams) -> list[MatrixColumn]:
    """The columns of an encoder of the string column at this position."""
    grams = _put_grams(draft, encode)
    if encode.project is None:
        group = GramsColumns(position, grams, encode.width)
        return [CodedColumn(group, at) for at in range(encode.width)]
    written = draft.new(encode.width)
    draft.append(layout.GRAMS, [Entry((), written, (position, grams))])
    return list(written)


def put_mapping(draft: Draft, case: characters.Case, accents: Accents) -> int:
    """The position of a table of what characters become; there is one of each in a program."""
    key = (case, accents)
    mapping = characters.mapping(case, accents)
    draft.text_growth = max(draft.text_growth, mapping.growth)
    if key not in draft.shared:
        draft.shared[key] = draft.put(characters.mapping_words(mapping, draft.size))
    return draft.shared[key]


def _put_grams(draft: Draft, encode: Grams) -> int:
    of, project = encode.grams, encode.project
    tokens = of.tokens if isinstance(of, WordGrams) else None
    if tokens not in draft.shared:
        draft.shared[tokens] = draft.put(characters.class_words(tokens, draft.size))
    mapping = put_mapping(draft, "lower" if of.lowercase else "keep", of.accents)
    width = 0 if project is None else project.width
    places, weights = _put_projection(draft, encode)
    words = [
        mapping,
        draft.shared[tokens],
        _kind(of),
        of.shortest,
        of.longest,
        tokens.least if tokens else 0,
        layout.IS_WORD if tokens and tokens.whole else layout.IS_TOKEN,
        _put_terms(draft, encode),
        encode.columns.width,
        int(not isinstance(encode.columns, Vocabulary)),
        int(getattr(encode.columns, "signed", False)),
        int(encode.columns.binary),
        width,
        places,
        weights,
    ]
    for step in encode.weigh:
        words += _weigh(draft, step)
    draft.counted = max(draft.counted, encode.columns.width)
    draft.summed = max(draft.summed, width)
    return draft.put([*words, layout.WEIGH_END, 0])


def _kind(of: WordGrams | CharacterGrams) -> int:
    if isinstance(of, WordGrams):
        return layout.OF_WORDS
    return layout.OF_CHARACTERS_WITHIN if of.within_words else layout.OF_CHARACTERS


def _weigh(draft: Draft, step: object) -> list[int]:
    match step:
        case Scale():
            return [layout.WEIGH_SCALE, draft.put_reals(step.values)]
        case Above(threshold):
            return [layout.WEIGH_ABOVE, bits(threshold)]
        case Norm(norm):
            return [layout.WEIGH_NORM, _NORMS[norm]]
    return [layout.WEIGH_LOG, 0]


def _put_projection(draft: Draft, encode: Grams) -> tuple[int, int]:
    """The positions of the projection's row of each column, 0 where it is the column's own, and of its rows."""
    project = encode.project
    if project is None:
        return 0, 0
    weights = draft.put_reals(project.rows)
    if not project.columns:
        return 0, weights
    places = np.full(encode.columns.width, -1)
    places[project.places] = np.arange(len(project.places))
    return draft.put(places), weights


def _put_terms(draft: Draft, encode: Grams) -> int:
    """The position of the table of terms and stop words, 0 where there are none. A stop word that is a term is a stop word."""
    columns = encode.columns
    terms = columns.terms if isinstance(columns, Vocabulary) else ()
    stop_words = encode.grams.stop_words if isinstance(encode.grams, WordGrams) else ()
    codes = {term.encode(): code for code, term in enumerate(terms)}
    codes |= {word.encode(): columns.width + at for at, word in enumerate(stop_words)}
    if not codes:
        return 0
    slots = max(2, 1 << (2 * len(codes) - 1).bit_length())
    draft.take(slots)
    return draft.put(term_words(codes, slots, draft.size))


def term_words(codes: dict[bytes, int], slots: int, start: int) -> NDArray[np.int64]:
    """A table of these terms with their codes, for the position `start`; `slots` is a power of two.

    It is made by numpy: Python takes five seconds for 200,000 terms, in which a worker would answer nobody.
    """
    lengths = np.array([len(term) for term in codes], np.int64)
    sizes = -(-lengths // layout.WORD_BYTES)
    padded = b"".join(term + bytes(-len(term) % layout.WORD_BYTES) for term in codes)
    texts = np.frombuffer(padded, "<u8").astype(np.uint64)
    begins = np.cumsum(sizes) - sizes
    mixed = _mixed_of(texts, begins, sizes)
    places = start + layout.TERMS_WORDS + slots + begins + np.arange(len(codes))
    words = (mixed >> np.uint64(32) << np.uint64(32) | places.astype(np.uint64)).view(np.int64)
    table = _filled(slots, (mixed & np.uint64(slots - 1)).tolist(), words.tolist())
    # Before each term's text its code and length.
    heads = np.fromiter(codes.values(), np.int64, len(codes)) << layout.CODE_AT | lengths
    records = np.insert(texts.view(np.int64), begins, heads)
    return np.concatenate([np.array([slots - 1, lengths.max()], np.int64), table, records])


def _mixed_of(texts: NDArray[np.uint64], begins: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.uint64]:
    """The hash of each text, as `tables.mixed_of` has it; they are side by side, as words."""
    mixed = np.full(len(begins), layout.HASH_START, np.uint64)
    left = np.flatnonzero(sizes)
    at = 0
    while len(left):
        found = (mixed[left] ^ texts[begins[left] + at]) * np.uint64(layout.HASH_PRIME)
        mixed[left] = found ^ found >> np.uint64(32)
        at += 1
        left = left[sizes[left] > at]
    return mixed


def _filled(slots: int, homes: Sequence[int], words: Sequence[int]) -> NDArray[np.int64]:
    """The slots with each word in the first free one from its home on."""
    table = [0] * slots
    for home, word in zip(homes, words, strict=True):
        slot = home
        while table[slot]:
            slot = slot + 1 & slots - 1
        table[slot] = word
    return np.array(table, np.int64)
