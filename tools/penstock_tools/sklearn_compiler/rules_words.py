r"""Rules of scikit-learn's text vectorizers, and of what weighs, scales or decomposes what they count.

Their columns are too many to be made: they stay `Words` until `words` sums them into what a model needs. A token pattern is
read from Python's own parse of the regular expression: runs of one class of characters can be split without one. A function of
a person's own cannot be read, and is refused with what would work.
"""

import importlib
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from spox import Var

from penstock_server.features.spec.grams import (
    Accents,
    Buckets,
    CharacterGrams,
    Grams,
    Norm,
    Scale,
    Sublinear,
    Tokens,
    Vocabulary,
    Weigh,
    WordGrams,
    packed,
)
from penstock_server.features.spec.steps import Linear, Normalise
from penstock_tools.sklearn_compiler import in_graph, words
from penstock_tools.sklearn_compiler.columns import InGraph, Numbers, Part, Parts, Strings, Words, numbers, then
from penstock_tools.sklearn_compiler.graph.context import Context
from penstock_tools.sklearn_compiler.refusals import NotCompiled, Refused

_NORMS: Final[dict[str | None, tuple[Weigh, ...]]] = {
    None: (),
    "l1": (Norm("l1"),),
    "l2": (Norm("l2"),),
    "max": (Norm("max"),),
}
_ACCENTS: Final[dict[str | None, Accents]] = {None: "keep", "unicode": "unicode", "ascii": "ascii"}


def count(vectorizer: Any, parts: Parts) -> Parts:
    """CountVectorizer."""
    return (Words(_column(vectorizer, parts), _counted(vectorizer, parts)),)


def tfidf(vectorizer: Any, parts: Parts) -> Parts:
    """TfidfVectorizer."""
    counted = Words(_column(vectorizer, parts), _counted(vectorizer, parts))
    return (counted.weighed(*_tfidf_steps(vectorizer, vectorizer.idf_ if vectorizer.use_idf else None)),)


def hashing(vectorizer: Any, parts: Parts) -> Parts:
    """HashingVectorizer."""
    columns = Buckets(int(vectorizer.n_features), bool(vectorizer.alternate_sign), bool(vectorizer.binary))
    encode = Grams(_grams(vectorizer, parts), columns, _NORMS[vectorizer.norm])
    return (Words(_column(vectorizer, parts), encode),)


def tfidf_transformer(transformer: Any, parts: Parts) -> Parts:
    """TfidfTransformer behind a vectorizer that counts."""
    part = _only(parts)
    idf = transformer.idf_ if transformer.use_idf else None
    return (part.weighed(*_tfidf_steps(transformer, None if idf is None else part.spread(idf, 0.0))),)


def normalizer(transformer: Any, parts: Parts) -> Parts:
    """Normalizer; of words beside other columns it needs the whole row."""
    if len(parts) == 1 and isinstance(parts[0], Words):
        return (_alone(parts[0]).weighed(*_NORMS[transformer.norm]),)
    return (Numbers(then(numbers(parts), Normalise(transformer.norm))),)


def scaled(factors: Callable[[Any], NDArray[np.float64] | None]) -> Callable[[Any, Parts], Parts]:
    """The rule of a scaler that multiplies each column by a factor; None where it leaves them alone."""

    def rule(scaler: Any, parts: Parts) -> Parts:
        by_column = factors(scaler)
        return parts if by_column is None else tuple(_each(parts, by_column, _times))

    return rule


def binarizer(transformer: Any, parts: Parts) -> Parts:
    """Binarizer, of words with a threshold that is not negative, as scikit-learn has it."""
    return words.binarised(parts, float(transformer.threshold))


def svd(transformer: Any, parts: Parts) -> Parts:
    """TruncatedSVD: of one text it is a projection; beside other columns the graph adds what each of them gives."""
    if len(parts) == 1 and isinstance(parts[0], Words):
        return (parts[0].projected(transformer.components_.T),)
    if not any(isinstance(part, Words) for part in parts):
        raise NotCompiled("Penstock has no rule for TruncatedSVD")
    folded, reduced = words.fold(parts, transformer)
    before = in_graph.stacked(folded)

    def emit(x: Var, context: Context) -> Var:
        features = context.emit(reduced, context.cast(before.emit(x, context))).features
        assert features is not None  # It is a transformer.
        return features

    return (InGraph(before.block, emit, len(transformer.components_)),)


def weighted(parts: Parts, weight: float) -> Parts:
    """Each column times the weight that a container gives it."""
    return tuple(_each(parts, np.full(sum(part.width for part in parts), weight), _times))


def max_abs_factors(scaler: Any) -> NDArray[np.float64] | None:
    """What MaxAbsScaler multiplies by; it clips only what exceeds the training data."""
    if getattr(scaler, "clip", False):
        raise NotCompiled("it clips")
    return 1.0 / np.asarray(scaler.scale_, np.float64)


def standard_factors(scaler: Any) -> NDArray[np.float64] | None:
    """What StandardScaler multiplies by."""
    if scaler.with_mean:
        raise NotCompiled("it subtracts a mean, so that no value is zero; StandardScaler(with_mean=False) does not")
    return 1.0 / np.asarray(scaler.scale_, np.float64) if scaler.with_std else None


def _each(
    parts: Parts, values: NDArray[np.float64], change: Callable[[Part, NDArray[np.float64]], Part]
) -> Sequence[Part]:
    """Each part changed, with the values of its own columns."""
    made, at = [], 0
    for part in parts:
        made.append(change(part, values[at : at + part.width]))
        at += part.width
    return made


def _times(part: Part, factors: NDArray[np.float64]) -> Part:
    if isinstance(part, Words):
        return part.weighed(Scale(packed(part.spread(factors, 0.0))))
    return Numbers(then(numbers((part,)), Linear(scale=tuple(factors.tolist()))))


def _only(parts: Parts) -> Words:
    if len(parts) == 1 and isinstance(parts[0], Words):
        return _alone(parts[0])
    raise NotCompiled("it does not come right behind one vectorizer of text")


def _alone(part: Words) -> Words:
    """The columns that are left as all that the encoder has, so that a norm is of them alone."""
    if part.chosen is None:
        return part
    kept = np.zeros(part.encode.columns.width)
    kept[list(part.chosen)] = 1.0
    return part.weighed(Scale(packed(kept)))


def _tfidf_steps(transformer: Any, idf: NDArray[np.float64] | None) -> list[Weigh]:
    steps: list[Weigh] = [Sublinear()] if transformer.sublinear_tf else []
    if idf is not None:
        steps.append(Scale(packed(np.asarray(idf, np.float64))))
    return [*steps, *_NORMS[transformer.norm]]


def _column(vectorizer: Any, parts: Parts) -> str:
    """The column of texts that a vectorizer reads."""
    name = type(vectorizer).__name__
    if len(parts) != 1 or not isinstance(parts[0], Strings):
        raise Refused(f"{name} takes one column of text, and {len(parts)} columns get there; give it one by its name")
    changed = any(isinstance(means, str) and means != text for text, means in parts[0].becomes.items())
    if changed or parts[0].otherwise is not None:
        raise Refused(f"column {parts[0].column!r} was filled before, and {name} reads it as it is; fill it with ''")
    return parts[0].column


def _counted(vectorizer: Any, parts: Parts) -> Grams:
    terms = np.empty(len(vectorizer.vocabulary_), object)
    for term, at in vectorizer.vocabulary_.items():
        terms[int(at)] = str(term)
    return Grams(_grams(vectorizer, parts), Vocabulary(tuple(terms.tolist()), bool(vectorizer.binary)))


def _grams(vectorizer: Any, parts: Parts) -> WordGrams | CharacterGrams:
    _check_own(vectorizer)
    shortest, longest = map(int, vectorizer.ngram_range)
    accents = _ACCENTS[vectorizer.strip_accents]
    prepare = set(getattr(parts[0], "prepare", ())) if parts else set()
    lowercase = bool(vectorizer.lowercase) or "lower" in prepare
    # To lower twice changes nothing, and white space at the ends is in no word.
    prepare -= {"lower"} | (set() if vectorizer.analyzer == "char" else {"strip", "lstrip", "rstrip"})
    if prepare:
        raise Refused(
            f"the text is changed by .str.{', .str.'.join(sorted(prepare))} before, which compiles before encoders of "
            "categories; lowercase and strip_accents of the vectorizer work"
        )
    if vectorizer.analyzer != "word":
        return CharacterGrams(shortest, longest, lowercase, accents, vectorizer.analyzer == "char_wb")
    # A stop word with white space in it is no token, unless tokens hold white space.
    stop_words = tuple(sorted(map(str, vectorizer.get_stop_words() or ())))
    return WordGrams(
        shortest, longest, lowercase, accents, tokens=tokens_of(vectorizer.token_pattern), stop_words=stop_words
    )


def _check_own(vectorizer: Any) -> None:
    """Refuses functions of a person's own, and what is no text.

    Raises:
        Refused: says what would work instead.
    """
    if vectorizer.input != "content":
        raise Refused(f"it reads files (input={vectorizer.input!r}), which requests do not have; input='content' works")
    if callable(vectorizer.analyzer):
        raise Refused(f"its analyzer is {_named(vectorizer.analyzer)}; analyzer='word', 'char' or 'char_wb' works")
    if vectorizer.preprocessor is not None:
        raise Refused(f"its preprocessor is {_named(vectorizer.preprocessor)}; lowercase and strip_accents work")
    if vectorizer.tokenizer is not None and vectorizer.analyzer == "word":
        raise Refused(rf"its tokenizer is {_named(vectorizer.tokenizer)}; a token_pattern such as r'\S+' works")
    if callable(vectorizer.strip_accents):
        raise Refused(f"strip_accents is {_named(vectorizer.strip_accents)}; 'unicode' and 'ascii' work")


def _named(function: Any) -> str:
    return f"the function {getattr(function, '__qualname__', type(function).__name__)}"


def tokens_of(pattern: str) -> Tokens:
    r"""The tokens that a regular expression finds, if they are runs of one class of characters.

    Raises:
        Refused: they are not.

    >>> tokens_of(r"(?u)\b\w\w+\b"), tokens_of(r"[a-z]{3,}")
    (Tokens(characters=('\\w',), least=2), Tokens(characters=('a-z',), least=3))
    """
    parser: Any = importlib.import_module("re._parser")  # the parse of `re` itself, which has no public name
    refused = Refused(
        f"its token_pattern {pattern!r} is more than a run of characters of one class; "
        r"patterns such as r'(?u)\b\w\w+\b', r'\S+' and r'[a-z]{2,}' work"
    )
    parsed = parser.parse(pattern)
    items = list(parsed)
    if parsed.state.flags & (re.IGNORECASE | re.ASCII | re.LOCALE | re.MULTILINE | re.DOTALL):
        raise refused
    boundaries = [_is_boundary(item) for item in items]
    starts, ends = boundaries[:1] == [True], boundaries[-1:] == [True]
    inner = items[1 if starts else 0 : len(items) - 1 if ends else None]
    if len(inner) == 1 and str(inner[0][0]) == "SUBPATTERN" and inner[0][1][1:3] == (0, 0):
        inner = list(inner[0][1][3])
    runs = [_run(item) for item in inner]
    classes = {run[0] for run in runs if run is not None}
    if None in runs or len(classes) != 1 or starts != ends:
        raise refused
    least = sum(run[1] for run in runs if run is not None)
    is_open = any(run[2] for run in runs if run is not None)
    ((characters, negated),) = classes
    if not is_open or least < 1:
        raise refused
    if starts and not _are_of_words(characters, negated):
        raise refused
    whole = starts and (characters, negated) != ((r"\w",), False)
    return Tokens(characters, negated, least, whole)


_Class = tuple[tuple[str, ...], bool]


def _is_boundary(item: Any) -> bool:
    return str(item[0]) == "AT" and str(item[1]) == "AT_BOUNDARY"


def _run(item: Any) -> tuple[_Class, int, bool] | None:
    """The class of a part of a regular expression, how often it is there at least, and whether more often too."""
    kind, value = str(item[0]), item[1]
    if kind == "MAX_REPEAT":
        least, most, inner = value
        found = _class(inner[0]) if len(inner) == 1 else None
        is_open = str(most) == "MAXREPEAT"
        return None if found is None or not (is_open or least == most) else (found, int(least), is_open)
    found = _class(item)
    return None if found is None else (found, 1, False)


def _class(item: Any) -> _Class | None:
    """The class that one character of a token must be of."""
    kind, value = str(item[0]), item[1]
    if kind == "LITERAL":
        return (chr(value),), False
    if kind == "NOT_LITERAL":
        return (chr(value),), True
    if kind != "IN":
        return None
    negated = bool(value) and str(value[0][0]) == "NEGATE"
    members = [_member(each) for each in value[1 if negated else 0 :]]
    if None in members:
        return None
    return tuple(sorted(member for member in members if member is not None)), negated


def _member(item: Any) -> str | None:
    kind, value = str(item[0]), item[1]
    if kind == "LITERAL":
        return chr(value)
    if kind == "RANGE":
        return f"{chr(value[0])}-{chr(value[1])}"
    return _CATEGORIES.get(str(value)) if kind == "CATEGORY" else None


_CATEGORIES: Final = {
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
}


def _are_of_words(characters: tuple[str, ...], negated: bool) -> bool:
    r"""Whether all characters of a class are in `\w`: only then does a token end at `\b` where its run does."""
    if negated:
        return r"\W" in characters
    return all(each in {r"\w", r"\d"} or _is_word_range(each) for each in characters)


def _is_word_range(each: str) -> bool:
    if each.startswith("\\") and len(each) == 2:
        return False
    return all(re.fullmatch(r"\w", chr(point)) for point in range(ord(each[0]), ord(each[-1]) + 1))
