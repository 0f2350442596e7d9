"""Golden requests made by asking the model: what it answers to a few rows at publishing, a server must get again.

Decides how a sample reaches the model: through the feature pipeline where there is one. Their form and comparison are
`models.golden`'s. `publish` calls it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from penstock.tensors import NUMPY_TYPES
from penstock_server.errors import InvalidInputError
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import FeatureSpec, StringColumn
from penstock_server.models import golden
from penstock_server.models.onnx_model import OnnxModel


def golden_requests(model: OnnxModel, sample: Mapping[str, ArrayLike], features: FeatureSpec | None) -> golden.Golden:
    """The rows of `sample` with the model's answers.

    Args:
        model: the opened model.
        sample: rows by raw column (missing: NaN, or "" in text), or by input where there are no features.
        features: the feature specification, if the model stands behind one.

    Raises:
        InvalidInputError: the sample lacks a column or input, or a value is infinite.
        ModelFailedError: the model fails on these rows.
    """
    asked = _inputs(model, sample) if features is None else _columns(features, sample)
    feeds = asked if features is None else {model.signature.inputs[0].name: Pipeline(features).transform(asked)}
    answers = model.run(feeds)
    return golden.make(asked, dict(zip((spec.name for spec in model.signature.outputs), answers, strict=True)))


def _columns(features: FeatureSpec, sample: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
    _hold_names([column.name for column in features.columns], sample, "column")
    return {
        column.name: np.asarray(sample[column.name], object if isinstance(column, StringColumn) else np.float64)
        for column in features.columns
    }


def _inputs(model: OnnxModel, sample: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
    _hold_names([spec.name for spec in model.signature.inputs], sample, "input")
    return {
        spec.name: np.asarray(sample[spec.name], NUMPY_TYPES.get(spec.datatype, np.dtype(object)))
        for spec in model.signature.inputs
    }


def _hold_names(expected: list[str], sample: Mapping[str, ArrayLike], what: str) -> None:
    missing = [name for name in expected if name not in sample]
    if missing:
        raise InvalidInputError(f"the sample lacks {what} {missing[0]!r}; expected {', '.join(expected)}")
