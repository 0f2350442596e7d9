"""Rules of the transformers about missing values: SimpleImputer and MissingIndicator, of numbers and of text.

On the wire a missing number is NaN and a missing text is "". What an imputer looks for (None, NaN, pandas.NA, "") is
compared with what stood for missing texts in the sample; if no text was missing there, all of these count as missing.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from penstock_server.features.spec import spec
from penstock_server.features.spec.spec import Categories
from penstock_server.features.spec.steps import Fill, IsMissing, Lookup
from penstock_tools.sklearn_compiler.columns import (
    Coded,
    InGraph,
    Meaning,
    Numbers,
    Part,
    Parts,
    Strings,
    Times,
    Words,
    pick,
    then,
)
from penstock_tools.sklearn_compiler.refusals import NotCompiled, Refused
from penstock_tools.sklearn_compiler.sample import Missing, missing_kind

_FOUND_BY_NA: Final = frozenset({Missing.NONE, Missing.NAN, Missing.NA})


def simple_imputer(imputer: Any, parts: Parts) -> Parts:
    """SimpleImputer: a column that had no value in training is left out, and indicators come after all columns."""
    statistics = list(imputer.statistics_)
    is_kept = [imputer.keep_empty_features or missing_kind(value) in (None, Missing.EMPTY) for value in statistics]
    kept = [at for at, stays in enumerate(is_kept) if stays]
    whole = _filled(pick(parts, kept), [statistics[at] for at in kept], imputer)
    indicators = missing_indicator(imputer.indicator_, parts) if imputer.add_indicator else ()
    return (*whole, *indicators)


def missing_indicator(indicator: Any, parts: Parts) -> Parts:
    """MissingIndicator. Its `error_on_new` is ignored: a column that was complete in training may have missing values later."""
    chosen = pick(parts, [int(at) for at in indicator.features_])
    return tuple(indicated(part, indicator.missing_values) for part in chosen)


def _filled(parts: Parts, values: Sequence[Any], imputer: Any) -> Parts:
    # An imputer of whole numbers cuts its fill value to one.
    made, at = [], 0
    for part in parts:
        made.append(
            filled(part, imputer.missing_values, values[at : at + part.width], getattr(imputer, "_fill_dtype", None))
        )
        at += part.width
    return tuple(made)


def filled(part: Part, marker: Any, values: Sequence[Any], dtype: Any = None) -> Part:
    """The part with these values where the marker is: one for each column of numbers, or a text.

    Args:
        part: columns of numbers, or one of text.
        marker: what is replaced; `pandas.NA` is any missing value but "".
        values: what replaces it.
        dtype: what the values are cut to first, such as whole numbers; None leaves them.

    Raises:
        Refused: a text would be filled into numbers, or a number into text.
        NotCompiled: the graph makes the part.
    """
    if isinstance(part, InGraph | Words | Times | Coded):
        raise NotCompiled("what comes before it is in the graph")
    if isinstance(part, Strings):
        return _replaced(part, marker, values[0])
    if any(isinstance(value, str) for value in values):
        text = next(value for value in values if isinstance(value, str))
        raise Refused(f"it fills {text!r} into numbers; fill a number, or give a sample with text in the column")
    as_fitted = np.asarray(values).astype(np.float64 if dtype is None else dtype, copy=False)
    fill = tuple(float(value) for value in as_fitted)
    return Numbers(then(part.block, Fill(fill, _number_marker(marker))))


def indicated(part: Part, marker: Any) -> Part:
    """1.0 where the marker is, else 0.0, for each column; `pandas.NA` is any missing value but "".

    Raises:
        Refused: it looks for a text among numbers.
        NotCompiled: the graph makes the part.
    """
    if isinstance(part, InGraph | Words | Times | Coded):
        raise NotCompiled("what comes before it is in the graph")
    if isinstance(part, Numbers):
        return Numbers(then(part.block, IsMissing(_number_marker(marker))))
    known = _candidates(part, marker)
    is_other = part.otherwise is not None and _is_marked(part.otherwise, marker)
    told_apart = tuple(text for text, stands_for in known.items() if _is_marked(stands_for, marker) != is_other)
    table = ((float(not is_other),),) * len(told_apart) + ((float(is_other),),)
    return Numbers(spec.Text(part.column, Categories(told_apart), (Lookup((table,)),), part.prepare))


def _replaced(part: Strings, marker: Any, fill: Any) -> Strings:
    if not isinstance(fill, str):
        raise Refused(f"it fills {fill!r} into column {part.column!r}, which is text; fill a text")
    became = {
        text: fill if _is_marked(stands_for, marker) else stands_for
        for text, stands_for in _candidates(part, marker).items()
    }
    other = part.otherwise
    is_other = other is not None and _is_marked(other, marker)
    return replace(part, becomes=became, otherwise=fill if is_other else other)


def _candidates(part: Strings, marker: Any) -> dict[str, Meaning]:
    """What texts on the wire stand for, where that is not the text itself or the text is the marker."""
    return part.texts([marker] if isinstance(marker, str) and marker else ())


def _is_marked(stands_for: Meaning, marker: Any) -> bool:
    kind = missing_kind(marker)
    if isinstance(stands_for, str):
        return isinstance(marker, str) and stands_for == marker
    return not stands_for.isdisjoint(_FOUND_BY_NA) if kind is Missing.NA else kind in stands_for


def _number_marker(marker: Any) -> float | None:
    kind = missing_kind(marker)
    if kind in _FOUND_BY_NA:
        return None
    if isinstance(marker, str):
        raise Refused(f"it looks for the text {marker!r} among numbers")
    return float(marker)
