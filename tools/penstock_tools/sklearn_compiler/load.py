"""Loads pipelines and samples from files.

A .skops file lists its types, and types that are not known to be harmless need a person's agreement. scikit-learn's trees are
harmless where their indexes are (`skops_trees`). A .joblib or .pkl file runs any code that it holds, so it always needs
agreement.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pandas as pd

from penstock_server.errors import InvalidInputError, UnsupportedError, first_line
from penstock_tools.sklearn_compiler import skops_trees
from penstock_tools.sklearn_compiler.tree_checks import UnknownUseError

PICKLES: Final = frozenset({".joblib", ".pkl", ".pickle"})
SUFFIXES: Final = PICKLES | {".skops"}

KNOWN_TYPES: Final = frozenset(
    {
        "functools.partial",
        "numpy.asarray",
        "numpy.clip",
        "numpy.dtype",
        "numpy.nan_to_num",
        "penstock_tools.functions.cyclical",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
        "scipy.interpolate._bsplines.BSpline",
        "sklearn._loss.loss.HalfTweedieLossIdentity",
        "sklearn.feature_selection._mutual_info.mutual_info_classif",
        "sklearn.feature_selection._mutual_info.mutual_info_regression",
        "sklearn.feature_selection._univariate_selection.chi2",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.feature_selection._univariate_selection.f_regression",
        "sklearn.feature_selection._univariate_selection.r_regression",
        "sklearn.impute._iterative.IterativeImputer",
        "sklearn.impute._iterative._ImputerTriplet",
        "sklearn.utils._bunch.Bunch",
        "sklearn.utils.validation.check_array",
    }
)
"""Harmless types that skops does not list as such: plain data, functions of arrays, and such functions with arguments.

Other models in C than scikit-learn's trees are not among them: they use the indexes in a file unchecked.
"""

Agree = Callable[[str], bool]
"""Called with a warning before code of a file may run; returns whether the person agrees."""


def load_pipeline(path: Path, agree: Agree) -> Any:
    """The fitted pipeline in a file.

    Args:
        path: .skops, .joblib, .pkl or .pickle.
        agree: called with a warning before anything that a harmful file could use.

    Raises:
        InvalidInputError: no such file, another kind of file, not agreed to, or not a pipeline that loads here.
    """
    if path.suffix not in SUFFIXES:
        raise InvalidInputError(f"{path} is no pipeline; expected one of {', '.join(sorted(SUFFIXES))}")
    if not path.is_file():
        raise InvalidInputError(f"there is no file {path}; expected a pipeline saved with skops or joblib")
    loaded = _from_skops(path, agree) if path.suffix == ".skops" else _from_pickle(path, agree)
    if not hasattr(loaded, "predict") and not hasattr(loaded, "transform"):
        raise InvalidInputError(f"{path} holds a {type(loaded).__name__}, expected a fitted scikit-learn pipeline")
    return loaded


def read_sample(path: Path) -> pd.DataFrame:
    """The rows in a .csv or .parquet file. An empty field of a CSV is missing, and so is any text that pandas reads so.

    Raises:
        InvalidInputError: no such file, another kind of file, or no rows.
    """
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    if path.suffix not in readers:
        raise InvalidInputError(f"{path} is no sample; expected .csv or .parquet")
    if not path.is_file():
        raise InvalidInputError(f"there is no file {path}; expected sample rows as .csv or .parquet")
    try:
        frame = readers[path.suffix](path)
    except (ValueError, OSError, UnicodeError) as error:
        raise InvalidInputError(f"{path} does not read as {path.suffix[1:]}: {first_line(error)}") from error
    if not len(frame):
        raise InvalidInputError(f"{path} holds no rows; expected one at least")
    return frame


def with_labels(frame: pd.DataFrame, labels: str | None, what: str = "sample") -> tuple[pd.DataFrame, pd.Series | None]:
    """The frame, which is a `what`, without its column of labels, and that column; None if `labels` is None.

    Raises:
        InvalidInputError: there is no such column.
    """
    if labels is None:
        return frame, None
    if labels not in frame.columns:
        raise InvalidInputError(f"the {what} has no column {labels!r}; it has {', '.join(map(str, frame.columns))}")
    return frame.drop(columns=labels), frame[labels]


def _from_skops(path: Path, agree: Agree) -> Any:
    import skops.io

    content = path.read_bytes()
    try:
        unknown = sorted(set(skops.io.get_untrusted_types(data=content)) - KNOWN_TYPES)
    except Exception as error:
        # Bytes that skops did not write raise errors of zip, JSON and more.
        raise InvalidInputError(
            f"{path} is no skops file: {first_line(error)}; expected one that skops.io.dump wrote"
        ) from error
    named = ", ".join(unknown)
    if unknown and skops_trees.TREE_TYPES.issuperset(unknown):
        try:
            return _loaded(path, lambda: skops_trees.load(content, KNOWN_TYPES))
        except UnknownUseError as error:
            named += f", and {error}"
    if unknown and not agree(f"{path} holds types that are not known to be harmless: {named}."):
        raise InvalidInputError(f"{path} was not loaded: it holds {named}; --trust loads it all the same")
    return _loaded(path, lambda: skops.io.loads(content, trusted=[*KNOWN_TYPES, *unknown]))


def _from_pickle(path: Path, agree: Agree) -> Any:
    import joblib

    if not agree(f"Loading {path} runs any code that the file holds; load it only if you trust its source."):
        raise InvalidInputError(
            f"{path} was not loaded: that would run its code; --trust agrees, and .skops files need not"
        )
    return _loaded(path, lambda: joblib.load(path))


def _loaded(path: Path, load: Callable[[], Any]) -> Any:
    try:
        return load()
    except ModuleNotFoundError as error:
        raise UnsupportedError(f"{path} needs the module {error.name}, which is not installed here") from error
    except InvalidInputError as error:
        raise InvalidInputError(f"{path} is damaged: {error}; save the fitted pipeline again") from error
    except UnknownUseError:
        raise
    except Exception as error:
        # Unpickling may raise anything.
        raise InvalidInputError(
            f"{path} does not load: {type(error).__name__}: {first_line(error)}; "
            "save the fitted pipeline again with the libraries that are installed here"
        ) from error
