"""Tables of Unicode's characters for the kernels: what each becomes when texts are prepared, and which are part of a token.

They are taken from the running Python itself, so that a text is lowered, stripped of accents and split as Python does it. A
table has two stages: the first says for each run of `BLOCK_POINTS` code points where its block is, and equal blocks are there
once. `lower_grams` and `lower` put them into programs.
"""

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from penstock_server.features.compiler import layout
from penstock_server.features.spec.grams import Accents, Tokens

Case = Literal["keep", "lower", "upper", "casefold"]

ASSIGNED: Final = (range(0xD800), range(0xE000, 0x40000), range(0xE0000, layout.POINTS))
"""The code points that may be something to Python; all others are unassigned, private or surrogates."""

_SIGMA: Final = 0x3A3
_REPLACED_BYTES: Final = 3
"""What a byte that is no UTF-8 becomes: U+FFFD."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """What characters become.

    Attributes:
        texts: the UTF-8 of each code point that changes.
        is_dropping: whether all others go that are not ASCII.
        growth: the most bytes that one byte of a text becomes.
        is_lowering: a capital sigma becomes another letter at the end of a word.
    """

    texts: dict[int, bytes]
    is_dropping: bool
    growth: int
    is_lowering: bool


@cache
def mapping(case: Case, accents: Accents) -> Mapping:
    """What a text's characters become when its case is changed, and accents go after that."""
    change, strip = _CASES[case], _ACCENTS[accents]
    is_dropping = accents == "ascii"
    texts = {}
    growth = _REPLACED_BYTES
    for point, character in _characters():
        changed = strip(change(character))
        if changed != character and (changed or not is_dropping):
            texts[point] = encoded = changed.encode()
            growth = max(growth, -(-len(encoded) // len(character.encode())))
    return Mapping(texts, is_dropping, growth, case == "lower")


def mapping_words(given: Mapping, start: int) -> NDArray[np.int64]:
    """The table of what characters become, for the position `start`."""
    entries = _kinds().astype(np.int64)
    beyond = layout.IS_CHANGED if given.is_dropping else 0
    entries[layout.ASCII :] |= beyond
    pool = bytearray()
    for point, text in given.texts.items():
        entries[point] |= layout.IS_CHANGED | len(text) << layout.LENGTH_AT | len(pool) << layout.TEXT_AT
        pool += text
    ascii_texts = (given.texts.get(point, bytes([point])) for point in range(layout.ASCII))
    ascii_bytes = [text[0] for text in ascii_texts]
    first, blocks = _two_stages(entries.reshape(-1, layout.BLOCK_POINTS))
    at = start + layout.MAPPING_WORDS + layout.ASCII
    pool += bytes(-len(pool) % 8)
    header = [int(given.is_lowering), at + len(first) + blocks.size, beyond]
    stage = at + len(first) + first * layout.BLOCK_POINTS
    words = np.frombuffer(bytes(pool), "<i8").astype(np.int64)
    return np.concatenate([np.array(header, np.int64), np.array(ascii_bytes, np.int64), stage, blocks.ravel(), words])


def class_words(tokens: Tokens | None, start: int) -> NDArray[np.int64]:
    """The table of the classes of characters, for the position `start`; without `tokens`, none is part of one."""
    beyond, first, blocks = _classes(tokens)
    stage = start + layout.CLASS_WORDS + len(first) + first * blocks.shape[1]
    return np.concatenate([np.array([beyond], np.int64), stage, blocks.ravel()])


@lru_cache(maxsize=16)  # a look at every character there is
def _classes(tokens: Tokens | None) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """The class of what is beyond the table, and its two stages."""
    is_inside, is_inside_beyond = _members(tokens)
    found = is_inside * layout.IS_TOKEN + _is_word() * layout.IS_WORD + _is_space() * layout.IS_SPACE
    shifts = np.arange(layout.CLASSES_PER_WORD) * layout.CLASS_BITS
    packed = (found.reshape(-1, layout.CLASSES_PER_WORD).astype(np.int64) << shifts).sum(axis=1)
    beyond = layout.IS_TOKEN if is_inside_beyond else 0
    return beyond, *_two_stages(packed.reshape(-1, layout.BLOCK_POINTS // layout.CLASSES_PER_WORD))


def _two_stages(blocks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each block its place among the distinct ones, and those."""
    places: dict[bytes, int] = {}
    first = [places.setdefault(block.tobytes(), len(places)) for block in blocks]
    distinct = np.frombuffer(b"".join(places), np.int64).reshape(len(places), -1)
    return np.array(first, np.int64), distinct


def _characters() -> Iterator[tuple[int, str]]:
    return ((point, chr(point)) for points in ASSIGNED for point in points)


def _members(tokens: Tokens | None) -> tuple[NDArray[np.bool_], bool]:
    """Which code points are part of a token, and whether those beyond the table are."""
    found = np.zeros(layout.POINTS, np.bool_)
    beyond = False
    for each in tokens.characters if tokens else ():
        if each in _CATEGORIES:
            of, is_rest = _CATEGORIES[each]
            found |= of() != is_rest
            beyond |= is_rest
        else:
            low, high = ord(each[0]), ord(each[-1])
            found[low : high + 1] = True
            beyond |= high >= layout.POINTS
    is_negated = tokens is not None and tokens.negated
    return found != is_negated, beyond != is_negated


@cache
def _is_word() -> NDArray[np.bool_]:
    r"""Python's `\w`."""
    found = _where(str.isalnum)
    found[ord("_")] = True
    return found


@cache
def _is_digit() -> NDArray[np.bool_]:
    return _where(str.isdecimal)


@cache
def _is_space() -> NDArray[np.bool_]:
    return _where(str.isspace)


@cache
def _kinds() -> NDArray[np.uint8]:
    """What the letters around a capital sigma are, and white space.

    Python does not say which letters are cased or ignored there, but its sigma does: a final one follows a cased letter.
    """
    sigma, final = chr(_SIGMA), "ς"
    is_cased = _where(lambda character: (character + sigma).lower().endswith(final))
    is_passed = _where(lambda character: ("A" + character + sigma).lower().endswith(final))
    found = np.zeros(layout.POINTS, np.uint8)
    found[is_cased] |= layout.IS_CASED
    found[is_passed & ~is_cased] |= layout.IS_IGNORED
    found[_is_space()] |= layout.IS_BLANK
    return found


def _where(is_so: Callable[[str], bool]) -> NDArray[np.bool_]:
    found = np.zeros(layout.POINTS, np.bool_)
    for points in ASSIGNED:
        found[points.start : points.stop] = [is_so(chr(point)) for point in points]
    return found


def _without_marks(text: str) -> str:
    """As scikit-learn's `strip_accents_unicode`."""
    return "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each))


def _as_ascii(text: str) -> str:
    """As scikit-learn's `strip_accents_ascii`."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


_CASES: Final[dict[Case, Callable[[str], str]]] = {
    "keep": str,
    "lower": str.lower,
    "upper": str.upper,
    "casefold": str.casefold,
}
_ACCENTS: Final[dict[Accents, Callable[[str], str]]] = {"keep": str, "unicode": _without_marks, "ascii": _as_ascii}
_CATEGORIES: Final[dict[str, tuple[Callable[[], NDArray[np.bool_]], bool]]] = {
    r"\w": (_is_word, False),
    r"\W": (_is_word, True),
    r"\d": (_is_digit, False),
    r"\D": (_is_digit, True),
    r"\s": (_is_space, False),
    r"\S": (_is_space, True),
}
