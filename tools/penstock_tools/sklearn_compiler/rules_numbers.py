"""Rules of the transformers that scale, bound or norm numbers: one step each, with what they were fitted to.

The order of operations is scikit-learn's, so that results are equal to the last bit.
"""

from typing import Any

from penstock_server.features.spec.steps import Binarise, Clip, Linear, Normalise, Standardise, Step


def standard(scaler: Any) -> list[Step]:
    """StandardScaler."""
    return _standardise(scaler.mean_ if scaler.with_mean else None, scaler.scale_ if scaler.with_std else None)


def robust(scaler: Any) -> list[Step]:
    """RobustScaler."""
    return _standardise(
        scaler.center_ if scaler.with_centering else None, scaler.scale_ if scaler.with_scaling else None
    )


def max_abs(scaler: Any) -> list[Step]:
    """MaxAbsScaler; some versions can clip."""
    steps = _standardise(None, scaler.scale_)
    return [*steps, Clip((-1.0,), (1.0,))] if getattr(scaler, "clip", False) else steps


def min_max(scaler: Any) -> list[Step]:
    """MinMaxScaler."""
    steps: list[Step] = [Linear(floats(scaler.scale_), floats(scaler.min_))]
    low, high = scaler.feature_range
    return [*steps, Clip((float(low),), (float(high),))] if scaler.clip else steps


def normalizer(transformer: Any) -> list[Step]:
    """Normalizer."""
    return [Normalise(transformer.norm)]


def binarizer(transformer: Any) -> list[Step]:
    """Binarizer."""
    return [Binarise((float(transformer.threshold),))]


def floats(values: Any) -> tuple[float, ...]:
    """A fitted array as a parameter for each column."""
    return tuple(float(value) for value in values)


def _standardise(mean: Any, scale: Any) -> list[Step]:
    if mean is None and scale is None:
        return []
    return [Standardise(None if mean is None else floats(mean), None if scale is None else floats(scale))]
