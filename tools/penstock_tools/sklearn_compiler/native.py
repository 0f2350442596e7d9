"""Categories that an estimator encodes itself: HistGradientBoosting, LightGBM and XGBoost on frames with category columns.

Their trees compare codes. Which code a category has was decided when they were fitted, so an OrdinalEncoder in front of
the trees says the same. `walk` puts it there. A category that the fit never saw is a missing one to the first two. XGBoost
means to refuse it since 3.1, but 3.2 does so only where it comes behind all others in the alphabet; here it is refused
always. Before 3.1 it kept no categories: the codes were those of the rows at hand, which no specification can say.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.preprocessing import OrdinalEncoder

from penstock_tools.sklearn_compiler import kinds
from penstock_tools.sklearn_compiler.refusals import Refused
from penstock_tools.sklearn_compiler.trees_xgboost import categories as xgboost_categories


@dataclass(frozen=True, slots=True)
class NativeColumn:
    """A column as the trees of an estimator get it.

    Attributes:
        place: among the columns that the estimator was fitted on.
        encoder: fitted on that column alone; None where it is passed on.
    """

    place: int
    encoder: Any


def native_columns(estimator: Any) -> tuple[NativeColumn, ...] | None:
    """The columns in the order of the trees; None where the estimator encodes none of them itself."""
    if kinds.lookup({HistGradientBoostingClassifier: True, HistGradientBoostingRegressor: True}, estimator):
        return _hist(estimator)
    package = type(estimator).__module__.partition(".")[0]
    if package == "lightgbm" and hasattr(estimator, "booster_"):
        return _lightgbm(estimator)
    if package == "xgboost" and hasattr(estimator, "get_booster"):
        return _xgboost(estimator)
    return None


def _hist(estimator: Any) -> tuple[NativeColumn, ...] | None:
    transformer = estimator._preprocessor  # noqa: SLF001 - the encoder that it fitted has no public name
    if transformer is None:
        return None
    encoder = transformer.named_transformers_["encoder"]
    is_category = np.asarray(estimator.is_categorical_)
    coded = np.flatnonzero(is_category).tolist()
    encoders = [_encoder(categories) for categories in encoder.categories_]
    plain = np.flatnonzero(~is_category).tolist()
    return (*map(NativeColumn, coded, encoders), *(NativeColumn(place, None) for place in plain))


def _lightgbm(estimator: Any) -> tuple[NativeColumn, ...] | None:
    """Its categories are those of the frame's columns; which these are stands in the parameters that it saves."""
    categories = estimator.booster_.pandas_categorical
    if not categories:
        return None
    saved = estimator.booster_.model_to_string(num_iteration=1)
    found = saved.partition("\n[categorical_feature: ")[2].partition("]")[0]
    places = [int(place) for place in found.split(",") if place.strip().isdigit()]
    if len(places) != len(categories):
        return None
    return _in_order(estimator.n_features_in_, dict(zip(places, categories, strict=True)))


def _xgboost(estimator: Any) -> tuple[NativeColumn, ...] | None:
    categories = xgboost_categories(estimator)
    return _in_order(estimator.n_features_in_, categories, unseen="refuse") if categories else None


Unseen = Literal["missing", "refuse"]


def _in_order(
    columns: int, categories: Mapping[int, Sequence[Any]], unseen: Unseen = "missing"
) -> tuple[NativeColumn, ...]:
    encoders = {place: _encoder(found, unseen) for place, found in categories.items()}
    return tuple(NativeColumn(place, encoders.get(place)) for place in range(columns))


def _encoder(categories: Sequence[Any], unseen: Unseen = "missing") -> OrdinalEncoder:
    """Gives each category its place, and NaN to missing ones; the others are missing too, or refused."""
    values = np.asarray(categories)
    if values.dtype.kind not in "iufb":
        values = np.asarray(categories, object)
    elif not np.array_equal(values, np.sort(values), equal_nan=values.dtype.kind == "f"):
        # Fitting asks for numbers in order; codes are the places that the library gave them.
        raise Refused("its categories are numbers out of their order")
    how: dict[str, Any] = {"handle_unknown": "use_encoded_value", "unknown_value": np.nan}
    if unseen == "refuse":
        # It refuses all that it does not know, a missing value too, unless that is a category.
        how = {"handle_unknown": "error"}
        values = np.append(values, [np.nan] if values.dtype.kind == "f" else np.array([np.nan], object))
    encoder = OrdinalEncoder(categories=[values], encoded_missing_value=np.nan, **how)
    return encoder.fit(values.reshape(-1, 1))
