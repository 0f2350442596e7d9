"""All steps, and the union of them that a file may hold.

A step checks itself when it is made and raises `ValueError`; its block checks whether it fits the columns that reach it.
"""

from penstock_server.features.spec.step_base import Name, StepBase, Unseen, spread, tag_of
from penstock_server.features.spec.steps_code import Bucket, Lookup, Match, OneHot
from penstock_server.features.spec.steps_compute import Compute, Operation
from penstock_server.features.spec.steps_curve import Cyclic, Power, Quantiles, Spline
from penstock_server.features.spec.steps_row import Normalise, Polynomial, Select
from penstock_server.features.spec.steps_value import (
    Apply,
    Binarise,
    Clip,
    Fill,
    IsMissing,
    Linear,
    Refuse,
    Standardise,
)

__all__ = [
    "Apply", "Binarise", "Bucket", "Clip", "Compute", "Cyclic", "Fill", "IsMissing", "Linear", "Lookup", "Match", "Name",
    "Normalise", "OneHot", "Operation", "Polynomial", "Power", "Quantiles", "Refuse", "Select", "Spline", "Standardise",
    "Step", "StepBase", "Unseen", "spread", "tag_of",
]  # fmt: skip

Step = (
    Select
    | Fill
    | IsMissing
    | Refuse
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
    | Compute
)
