"""How texts become numbers by the words or characters in them: counts of grams, weighed, and projected onto a few columns.

A gram is a run of some words, or of some characters. A row's counts are sparse, and a vocabulary may have a million grams, so
the counts of a row are weighed as they are, and a projection sums them into as many columns as a linear model needs. What
scikit-learn's vectorizers do, with the linear map behind them, is this encoder.

Letters are lowered, stripped of accents and told from other characters by the Unicode tables of the Python that serves;
versions of Python differ only in characters that are new in one of them. Bytes that are no UTF-8 count as U+FFFD each.
"""

import re
from typing import Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock_server.features.spec import limits
from penstock_server.features.spec.encoder_base import EncoderBase
from penstock_server.features.spec.step_base import Name

Accents = Literal["keep", "unicode", "ascii"]
"""What happens to accents: they stay, combining marks go, or everything goes that is not ASCII; the last two after NFKD."""

CATEGORIES: Final = frozenset({r"\w", r"\W", r"\d", r"\D", r"\s", r"\S"})
"""The categories of characters that a token may be made of, as Python's `re` has them."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True): ...


class Tokens(_Part, frozen=True):
    r"""The tokens of a text: its longest runs of characters of one class.

    Attributes:
        characters: each is one of `CATEGORIES`, a character, or a range such as "a-z".
        negated: whether the class is all other characters.
        least: runs of fewer characters are no tokens.
        whole: whether a token must also be a whole run of `\w`, as between two `\b`.
    """

    characters: tuple[str, ...]
    negated: bool = False
    least: int = 1
    whole: bool = False

    def __post_init__(self) -> None:
        limits.at_most("characters", len(self.characters), limits.MAX_EDGES)
        limits.between("least", self.least, 1, limits.MAX_CATEGORY_BYTES)
        for each in self.characters:
            is_range = len(each) == 3 and each[1] == "-" and each[0] <= each[2]
            if not (each in CATEGORIES or len(each) == 1 or is_range):
                raise ValueError(rf"characters holds {each[:20]!r}, expected \w or the like, a character, or a range")
            limits.utf8("characters", each, limits.MAX_CATEGORY_BYTES)


class _Grams(_Part, frozen=True, tag_field="of"):
    """What both kinds of grams share.

    Attributes:
        shortest, longest: how many words or characters a gram has.
        lowercase: whether the text is lowered first, as `str.lower` does.
        accents: what happens to accents after that.
    """

    shortest: int = 1
    longest: int = 1
    lowercase: bool = True
    accents: Accents = "keep"

    def __post_init__(self) -> None:
        limits.between("shortest", self.shortest, 1, limits.MAX_GRAM)
        limits.between("longest", self.longest, self.shortest, limits.MAX_GRAM)


class WordGrams(_Grams, frozen=True, kw_only=True, tag="words"):
    """Runs of tokens, joined by spaces; `stop_words` are taken out before."""

    tokens: Tokens
    stop_words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.at_most("stop words", len(self.stop_words), limits.MAX_CATEGORIES)
        for word in self.stop_words:
            limits.utf8("stop word", word, limits.MAX_TERM_BYTES)
        limits.distinct("stop word", self.stop_words)


class CharacterGrams(_Grams, frozen=True, tag="characters"):
    """Runs of characters, as scikit-learn's analyzers `char` and `char_wb` take them.

    Runs of white space count as one space. `within_words` takes the grams of each word by itself, with a space at both ends.
    """

    within_words: bool = False


class Vocabulary(_Part, frozen=True, tag_field="columns", tag="vocabulary"):
    """A column for each of the `terms`, distinct grams; `binary` counts a gram once."""

    terms: tuple[str, ...]
    binary: bool = False

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("terms is empty, expected at least one")
        limits.at_most("terms", len(self.terms), limits.MAX_TERMS)
        taken = sum(len(limits.utf8("term", term, limits.MAX_TERM_BYTES)) for term in self.terms)
        limits.at_most("bytes of terms", taken, limits.MAX_TERMS_BYTES)
        limits.distinct("term", self.terms)

    @property
    def width(self) -> int:
        return len(self.terms)


class Buckets(_Part, frozen=True, tag_field="columns", tag="buckets"):
    """`width` columns, into which grams are hashed; with h as for `Hash`, a gram counts -1 where it is `signed` and h < 0.

    `binary` makes 1 of each column that a gram of the row falls into.
    """

    width: int
    signed: bool = True
    binary: bool = False

    def __post_init__(self) -> None:
        limits.between("width", self.width, 1, limits.MAX_TERMS)


class Sublinear(_Part, frozen=True, tag_field="weigh", tag="sublinear"):
    """1 + log of each count."""


class Scale(_Part, frozen=True, tag_field="weigh", tag="scale"):
    """Each column times its weight: float64, little-endian."""

    weights: bytes

    @property
    def values(self) -> NDArray[np.float64]:
        return _finite("weights", self.weights)


class Above(_Part, frozen=True, tag_field="weigh", tag="above"):
    """1 where the value is above the threshold, which is not negative, else 0."""

    threshold: float

    def __post_init__(self) -> None:
        if limits.finite(self, "threshold") < 0:
            raise ValueError(f"threshold is {self.threshold}, expected at least 0, since what is not there is 0")


class Norm(_Part, frozen=True, tag_field="weigh", tag="norm"):
    """The row divided by its norm, unless that is 0."""

    norm: Literal["l1", "l2", "max"]


Weigh = Sublinear | Scale | Above | Norm


class Projection(_Part, frozen=True):
    """A sparse row times a matrix [columns, width].

    Attributes:
        width: how many columns it gives.
        weights: the rows of the matrix, float64, little-endian.
        columns: int32, little-endian: which columns these rows are of, increasing; all others are zeros. Empty for all.
    """

    width: int
    weights: bytes
    columns: bytes = b""

    def __post_init__(self) -> None:
        limits.between("width", self.width, 1, limits.MAX_WIDTH)

    @property
    def rows(self) -> NDArray[np.float64]:
        """float64 [rows, width]."""
        values = _finite("weights", self.weights)
        if len(values) % self.width:
            raise ValueError(f"weights has {len(values)} numbers, expected {self.width} for each row")
        return values.reshape(-1, self.width)

    @property
    def places(self) -> NDArray[np.int64]:
        """The columns that the rows are of; empty for all."""
        if len(self.columns) % 4:
            raise ValueError(f"columns takes {len(self.columns)} bytes, expected 4 for each row")
        return np.frombuffer(self.columns, "<i4").astype(np.int64)


class Grams(EncoderBase, frozen=True, tag="grams"):
    """The grams of a text, counted, weighed in turn, and perhaps projected.

    Attributes:
        grams: what is counted.
        columns: which column a gram is counted in.
        weigh: what happens to the counts, in order.
        project: sums the columns into fewer; without it, each is a column of the matrix.
    """

    grams: WordGrams | CharacterGrams
    columns: Vocabulary | Buckets
    weigh: tuple[Weigh, ...] = ()
    project: Projection | None = None

    def __post_init__(self) -> None:
        limits.at_most("weigh", len(self.weigh), limits.MAX_STEPS)
        for each in self.weigh:
            if isinstance(each, Scale) and len(each.weights) != 8 * self.columns.width:
                raise ValueError(
                    f"weights takes {len(each.weights)} bytes, expected 8 for each of {self.columns.width}"
                )
            if isinstance(each, Scale):
                _ = each.values
        if self.project is not None:
            self._check_projection(self.project)

    def _check_projection(self, project: Projection) -> None:
        places, rows, width = project.places, project.rows, self.columns.width
        expected = len(places) if project.columns else width
        if len(rows) != expected:
            raise ValueError(f"the projection has {len(rows)} rows, expected {expected}")
        if len(places) and (places[0] < 0 or places[-1] >= width or (np.diff(places) <= 0).any()):
            raise ValueError(f"the projection's columns must increase from 0 to at most {width - 1}")

    @property
    def width(self) -> int:
        return self.columns.width if self.project is None else self.project.width

    def names(self, column: str) -> tuple[Name, ...]:
        if self.project is None and isinstance(self.columns, Vocabulary):
            return tuple(Name(f"{column}_{_SPACES.sub(' ', term)}") for term in self.columns.terms)
        return tuple(Name(f"{column}_{at}") for at in range(self.width))


_SPACES: Final = re.compile(r"\s")


def packed(values: NDArray[np.float64]) -> bytes:
    """Numbers as a file has them: float64, little-endian."""
    return np.ascontiguousarray(values, "<f8").tobytes()


def packed_places(places: NDArray[np.int64]) -> bytes:
    """Columns as a file has them: int32, little-endian."""
    return np.ascontiguousarray(places, "<i4").tobytes()


def _finite(what: str, data: bytes) -> NDArray[np.float64]:
    if len(data) % 8:
        raise ValueError(f"{what} takes {len(data)} bytes, expected 8 for each number")
    values = np.frombuffer(data, "<f8")
    if not np.isfinite(values).all():
        raise ValueError(f"{what} has a number that is not finite")
    return values
