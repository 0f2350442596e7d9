"""What each transformer of a fitted pipeline gives for some rows: scikit-learn's side of the proof.

It walks as `walk` does, so that paths are the same; the values come from scikit-learn itself. `proof` calls it.
"""

import warnings
from collections.abc import Iterator
from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, Pipeline

from penstock_server.errors import InvalidInputError
from penstock_tools.sklearn_compiler.refusals import Path, place
from penstock_tools.sklearn_compiler.walk import branch_path, fitted_branches


def outputs(transformer: Any, rows: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The path of each transformer that is no container, and what it gives, in the order of the walk.

    Raises:
        InvalidInputError: scikit-learn refuses the rows; says where and why.
    """
    if transformer is None or isinstance(transformer, str):
        return
    if type(transformer) is Pipeline:
        for name, step in transformer.steps:
            here = branch_path(path, name, step)
            yield from outputs(step, rows, here)
            rows = rows if step in (None, "passthrough") else transformed(step, rows, here)
    elif type(transformer) is ColumnTransformer:
        for name, inner, chosen in fitted_branches(transformer):
            yield from outputs(inner, _columns(rows, chosen), branch_path(path, name, inner))
    elif type(transformer) is FeatureUnion:
        for name, inner in transformer.transformer_list:
            yield from outputs(inner, rows, branch_path(path, name, inner))
    else:
        yield path, transformed(transformer, rows, path)


def transformed(transformer: Any, rows: Any, path: Path) -> Any:
    """What scikit-learn gives.

    Raises:
        InvalidInputError: it refuses the rows.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A copy, because some are told to work in place.
            return transformer.transform(rows.copy())
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"{place(path)} itself refuses the sample: {error}") from error


def _columns(rows: Any, chosen: list[int]) -> Any:
    return rows.iloc[:, chosen] if hasattr(rows, "iloc") else rows[:, chosen]
