"""The fitted steps that a matrix of numbers goes through: all of them, from the files of their kinds.

A step checks itself at birth and raises `ValueError`; whether it fits the columns that reach it, its block asks.
"""

from penstock_server.features.spec.step_base import Name, StepBase, Unseen, spread, tag_of
from penstock_server.features.spec.steps_code import Bucket, Lookup, Match, OneHot
from penstock_server.features.spec.steps_curve import Cyclic, Power, Quantiles, Spline
from penstock_server.features.spec.steps_row import Normalise, Polynomial, Select
from penstock_server.features.spec.steps_value import (
    Apply,
    Binarise,
    Clip,
    Fill,
    IsMissing,
    Linear,
    Standardise,
)

__all__ = [
    "Apply", "Binarise", "Bucket", "Clip", "Cyclic", "Fill", "IsMissing", "Linear", "Lookup", "Match", "Name",
    "Normalise", "OneHot", "Polynomial", "Power", "Quantiles", "Select", "Spline", "Standardise", "Step", "StepBase",
    "Unseen", "spread", "tag_of",
]  # fmt: skip

Step = (
    Select
    | Fill
    | IsMissing
    | Clip
    | Standardise
    | Linear
    | Apply
    | Cyclic
    | Power
    | Quantiles
    | Bucket
    | Binarise
    | Match
    | OneHot
    | Lookup
    | Polynomial
    | Spline
    | Normalise
)
