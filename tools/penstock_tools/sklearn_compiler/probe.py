"""What a fitted encoder makes of each category that it knows, found by asking it.

So every option that decides it (dropped and infrequent categories, codes of missing values, smoothing) is scikit-learn's
own business, in whatever version. The rules of the encoders call it.
"""

import copy
import warnings
from typing import Any

import numpy as np
from scipy import sparse


def one_hot_places(encoder: Any) -> list[tuple[list[int], int]]:
    """For each column of a OneHotEncoder the place of each category's one in the column's block, and the block's width.

    The place is -1 where a category gives zeros alone.
    """
    answers = _outputs(encoder)
    found, start = [], 0
    for column, categories in enumerate(encoder.categories_):
        width = _one_hot_width(encoder, column)
        rows, places = answers[: len(categories), start : start + width].nonzero()
        by_row = dict(zip(rows.tolist(), places.tolist(), strict=True))
        found.append(([by_row.get(row, -1) for row in range(len(categories))], width))
        start += width
    return found


def numbers(encoder: Any) -> list[list[tuple[float, ...]]]:
    """For each column of an OrdinalEncoder or TargetEncoder the numbers of each category, as many as it gives columns."""
    answers = _outputs(encoder).toarray()
    width = answers.shape[1] // len(encoder.categories_)
    return [
        [tuple(row) for row in answers[: len(categories), at * width : (at + 1) * width].tolist()]
        for at, categories in enumerate(encoder.categories_)
    ]


def _outputs(encoder: Any) -> Any:
    """The encoder's output, sparse [most categories of a column, output columns].

    Row r has each column's category r, or its last one where it has fewer.
    """
    asked = copy.deepcopy(encoder).set_output(transform="default")
    if hasattr(asked, "sparse_output"):
        # Thousands of categories square are too much for a dense matrix.
        asked.sparse_output = True
    rows = max(len(categories) for categories in asked.categories_)
    table = np.empty((rows, len(asked.categories_)), object)
    for at, categories in enumerate(asked.categories_):
        table[:, at] = [*categories, *([categories[-1]] * (rows - len(categories)))]
    with warnings.catch_warnings():
        # It was fitted on named columns and is asked about a bare matrix.
        warnings.simplefilter("ignore")
        return sparse.csc_array(asked.transform(table))


def _one_hot_width(encoder: Any, column: int) -> int:
    infrequent = (getattr(encoder, "infrequent_categories_", None) or {column: None})[column]
    is_dropped = encoder.drop_idx_ is not None and encoder.drop_idx_[column] is not None
    grouped = 0 if infrequent is None else len(infrequent) - 1
    return len(encoder.categories_[column]) - grouped - is_dropped
