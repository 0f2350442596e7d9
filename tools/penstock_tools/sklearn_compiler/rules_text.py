"""Rules of the encoders of categories: OneHotEncoder, OrdinalEncoder and TargetEncoder, of numbers and of text.

Two questions are answered for each column. Which category is a text or number of a request? scikit-learn tells None, NaN
and "" apart, where a request has one missing text, "", and one missing number, NaN. What does the encoder make of each
category? The encoder itself transforms its categories, so scikit-learn decides every option (dropped and infrequent
categories, codes of missing values, smoothing), in any version. What the encoder refuses, the server refuses too, row
by row.
"""

import copy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse

from penstock_server.features.spec import spec
from penstock_server.features.spec.spec import Categories
from penstock_server.features.spec.step_base import Unseen
from penstock_server.features.spec.steps import Lookup, Match, OneHot, Step
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
    then,
)
from penstock_tools.sklearn_compiler.refusals import NotCompiled, Refused
from penstock_tools.sklearn_compiler.sample import Missing, missing_kind


@dataclass(frozen=True, slots=True)
class _Column:
    """One column: its categories, what each becomes, what an unseen one becomes, and in how many columns."""

    categories: Sequence[Any]
    outcomes: Sequence[Any]
    of_unseen: Any
    width: int

    def of_codes(self, meant: Sequence[int]) -> tuple[Any, ...]:
        """What the codes become that mean these categories; -1 is an unseen one."""
        return tuple(self.of_unseen if category == _UNSEEN else self.outcomes[category] for category in meant)


_UNSEEN = -1

ToSteps = Callable[[Sequence[_Column], Sequence[Sequence[int]]], list[Step]]
"""Makes the steps of columns side by side, given which category each of their codes means, the last code included."""


def one_hot(encoder: Any, parts: Parts) -> Parts:
    """OneHotEncoder. Dropped, infrequent and unseen categories differ only in where the one goes, if there is one."""
    columns = [
        _Column(encoder.categories_[at], places, _unseen_place(encoder, at, places), width)
        for at, (places, width) in enumerate(_one_hot_places(encoder))
    ]
    unseen: Unseen = "refuse" if encoder.handle_unknown == "error" else "code"
    return _encoded(columns, parts, unseen, _one_hot_steps)


def ordinal(encoder: Any, parts: Parts) -> Parts:
    """OrdinalEncoder."""
    is_refusing = encoder.handle_unknown == "error"
    of_unseen = (0.0 if is_refusing else float(encoder.unknown_value),)
    return _encoded(_looked_up(encoder, of_unseen), parts, "refuse" if is_refusing else "code", _lookup_steps)


def target(encoder: Any, parts: Parts) -> Parts:
    """TargetEncoder, as it transforms new rows: an unseen category becomes the mean of the target."""
    of_unseen = tuple(np.atleast_1d(encoder.target_mean_).tolist())
    return _encoded(_looked_up(encoder, of_unseen), parts, "code", _lookup_steps)


def _looked_up(encoder: Any, of_unseen: tuple[float, ...]) -> list[_Column]:
    known = zip(encoder.categories_, _category_numbers(encoder), strict=True)
    return [_Column(categories, numbers, of_unseen, len(of_unseen)) for categories, numbers in known]


def _encoded(columns: Sequence[_Column], parts: Parts, unseen: Unseen, to_steps: ToSteps) -> Parts:
    made: list[Part] = []
    at = 0
    for part in parts:
        made.append(_encoded_part(part, columns[at : at + part.width], unseen, to_steps))
        at += part.width
    return tuple(made)


def _encoded_part(part: Part, columns: Sequence[_Column], unseen: Unseen, to_steps: ToSteps) -> Part:
    if isinstance(part, InGraph | Words | Times):
        raise NotCompiled("what comes before it is in the graph")
    if isinstance(part, Strings):
        column = columns[0]
        place = _place_of(part, column.categories)
        of_others = _UNSEEN if part.otherwise is None else place(part.otherwise)
        unseen = unseen if of_others == _UNSEEN else "code"
        encode, meant = _text_categories(part, column.categories, place, unseen)
        steps = tuple(to_steps([column], [(*meant, of_others)]))
        return Numbers(spec.Text(part.column, encode, steps, part.prepare))
    if isinstance(part, Coded):
        return _encoded_codes(part, columns[0], unseen, to_steps)
    names = [name.text for name in part.block.names]
    values = tuple(_number_categories(name, column.categories) for name, column in zip(names, columns, strict=True))
    meant_each = [(*range(len(column.categories)), _UNSEEN) for column in columns]
    return Numbers(then(part.block, Match(values, unseen), *to_steps(columns, meant_each)))


def _encoded_codes(part: Coded, column: _Column, unseen: Unseen, to_steps: ToSteps) -> Part:
    """Texts that a function chose: each code is matched where the encoder knows its text, or that it is missing."""
    known: dict[float, int] = {}
    for at, category in enumerate(column.categories):
        if missing_kind(category) not in (None, Missing.EMPTY):
            known[-1.0] = at
        elif category in part.texts:
            known[float(part.texts.index(category))] = at
    match = Match((tuple(known),), unseen)
    return Numbers(then(part.block, match, *to_steps([column], [(*known.values(), _UNSEEN)])))


def _one_hot_steps(columns: Sequence[_Column], meant: Sequence[Sequence[int]]) -> list[Step]:
    places = tuple(column.of_codes(categories) for column, categories in zip(columns, meant, strict=True))
    return [OneHot(places, tuple(column.width for column in columns))]


def _lookup_steps(columns: Sequence[_Column], meant: Sequence[Sequence[int]]) -> list[Step]:
    return [Lookup(tuple(column.of_codes(categories) for column, categories in zip(columns, meant, strict=True)))]


def _unseen_place(encoder: Any, column: int, places: Sequence[int]) -> int:
    """The place of the infrequent categories where the unseen count as such; none otherwise."""
    if encoder.handle_unknown not in ("infrequent_if_exist", "warn"):
        return -1
    infrequent = (getattr(encoder, "infrequent_categories_", None) or {column: None})[column]
    if infrequent is None:
        return -1
    return places[list(encoder.categories_[column]).index(infrequent[0])]


def _place_of(part: Strings, categories: Sequence[Any]) -> Callable[[Meaning], int]:
    """What finds the place of a text or a missing value among the categories; -1 where it is none of them.

    Raises:
        Refused: a category is no text; and when it is called, if a missing value would be several of the categories.
    """
    kinds = [missing_kind(category) for category in categories]
    for category, kind in zip(categories, kinds, strict=True):
        if kind is None and not isinstance(category, str):
            raise Refused(
                f"column {part.column!r} is text, but it knows the category {_plain(category)!r}; "
                "give a sample with numbers in it"
            )
    texts = {category: at for at, category in enumerate(categories) if isinstance(category, str)}

    def place(meaning: Meaning) -> int:
        if isinstance(meaning, str):
            return texts.get(meaning, _UNSEEN)
        found = [at for at, kind in enumerate(kinds) if kind is not None and kind in meaning]
        if len(found) > 1:
            several = " and ".join(repr(categories[at]) for at in found)
            raise Refused(
                f"column {part.column!r} has the categories {several}, which requests cannot tell apart, as a missing text "
                "is ''; make them one before the pipeline is fitted"
            )
        return found[0] if found else _UNSEEN

    return place


def _text_categories(
    part: Strings, categories: Sequence[Any], place: Callable[[Meaning], int], unseen: Unseen
) -> tuple[Categories, tuple[int, ...]]:
    """The encoder of a text column, and for each of its codes the place among `categories` that it means.

    A text that an imputer replaces shares the category of its replacement.
    """
    known = [category for category in categories if isinstance(category, str)]
    meant = {text: place(meaning) for text, meaning in part.texts(known).items()}
    if part.otherwise is None:
        # They are what any other text is.
        meant = {text: at for text, at in meant.items() if at != _UNSEEN}
    return _encoder(meant, unseen), _meant_places(meant)


def _number_categories(name: str, categories: Sequence[Any]) -> tuple[float | None, ...]:
    """The categories of a number column; None is NaN.

    Raises:
        Refused: one is a text, or both None and NaN are among them.
    """
    found = tuple(_number(name, category) for category in categories)
    if found.count(None) > 1:
        raise Refused(
            f"column {name!r} has both None and NaN as categories, which requests cannot tell apart; make them one before "
            "the pipeline is fitted"
        )
    return found


def _plain(category: Any) -> Any:
    """A category as people write it: numpy's numbers say their type."""
    return category.item() if isinstance(category, np.generic) else category


def _encoder(meant: dict[str, int], unseen: Unseen) -> Categories:
    """The encoder; the missing text shares the code of its category's own text where there is one, for people to read."""
    values = tuple(text for text in meant if text)
    shared = [text for text in values if meant[text] == meant.get("")]
    if shared:
        return Categories(values, values.index(shared[0]), unseen)
    return Categories(tuple(meant), None, unseen)


def _meant_places(meant: dict[str, int]) -> tuple[int, ...]:
    texts = [text for text in meant if text]
    is_shared = any(meant[text] == meant.get("") for text in texts)
    return tuple(meant[text] for text in (texts if is_shared else meant))


def _number(name: str, category: Any) -> float | None:
    if isinstance(category, str):
        raise Refused(
            f"column {name!r} holds numbers or nothing in the sample, but it knows the category {category!r}; "
            "give a sample with text in the column (.csv cannot say that digits are text, .parquet can)"
        )
    return None if missing_kind(category) is not None else float(category)


def _one_hot_places(encoder: Any) -> list[tuple[list[int], int]]:
    """For each column of a OneHotEncoder: where in the column's block each category has its one, and the block's width.

    The place is -1 for a category of zeros alone.
    """
    answers = _outputs_by_category(encoder)
    found, start = [], 0
    for column, categories in enumerate(encoder.categories_):
        width = _one_hot_width(encoder, column)
        rows, places = answers[: len(categories), start : start + width].nonzero()
        by_row = dict(zip(rows.tolist(), places.tolist(), strict=True))
        found.append(([by_row.get(row, -1) for row in range(len(categories))], width))
        start += width
    return found


def _category_numbers(encoder: Any) -> list[list[tuple[float, ...]]]:
    """For each column of an OrdinalEncoder or TargetEncoder the numbers of each category, one per output column."""
    answers = _outputs_by_category(encoder).toarray()
    width = answers.shape[1] // len(encoder.categories_)
    return [
        [tuple(row) for row in answers[: len(categories), at * width : (at + 1) * width].tolist()]
        for at, categories in enumerate(encoder.categories_)
    ]


def _outputs_by_category(encoder: Any) -> Any:
    """The encoder's output, sparse [most categories of a column, output columns].

    Row r has each column's category r, or its last one where it has fewer.
    """
    encoder = copy.deepcopy(encoder).set_output(transform="default")
    if hasattr(encoder, "sparse_output"):
        # Thousands of categories square are too much for a dense matrix.
        encoder.sparse_output = True
    rows = max(len(categories) for categories in encoder.categories_)
    table = np.empty((rows, len(encoder.categories_)), object)
    for at, categories in enumerate(encoder.categories_):
        table[:, at] = [*categories, *([categories[-1]] * (rows - len(categories)))]
    with warnings.catch_warnings():
        # It was fitted on named columns and gets a bare matrix.
        warnings.simplefilter("ignore")
        return sparse.csc_array(encoder.transform(table))


def _one_hot_width(encoder: Any, column: int) -> int:
    infrequent = (getattr(encoder, "infrequent_categories_", None) or {column: None})[column]
    is_dropped = encoder.drop_idx_ is not None and encoder.drop_idx_[column] is not None
    grouped = 0 if infrequent is None else len(infrequent) - 1
    return len(encoder.categories_[column]) - grouped - is_dropped
