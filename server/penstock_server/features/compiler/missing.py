"""Finds the raw columns whose NaN can reach the model, because no step on the way handles it.

Such a step fills, tests or encodes missing values. `pipeline` refuses a missing value in a column found here if the
training rows had none.
"""

from penstock_server.features.spec import steps
from penstock_server.features.spec.blocks import Block, Join, Take, Text
from penstock_server.features.spec.spec import FeatureSpec

_TAKE_NAN = (steps.Bucket, steps.Match, steps.OneHot, steps.Lookup, steps.Binarise)
_ANSWERS = frozenset({"isnan", "isinf", "isfinite"})

# For each column, the raw columns whose NaN it can have, as bits of an integer: sets would be large for a wide block.
Columns = list[int]


def reaching(spec: FeatureSpec) -> frozenset[str]:
    """The names of the number columns whose NaN reaches an output."""
    bit = {column.name: 1 << at for at, column in enumerate(spec.columns)}
    found = 0
    for columns in _block(spec.features, bit):
        found |= columns
    return frozenset(name for name, mask in bit.items() if found & mask)


def _block(block: Block, bit: dict[str, int]) -> Columns:
    match block:
        case Take(columns):
            found = [bit[column] for column in columns]
        case Text():
            found = [0] * block.first_width
        case Join(blocks):
            found = [columns for each in blocks for columns in _block(each, bit)]
    for step in block.steps:
        found = _step(step, found)
    return found


def _step(step: steps.Step, columns: Columns) -> Columns:
    match step:
        case steps.Select(chosen):
            return [columns[at] for at in chosen]
        case steps.Polynomial(terms):
            return [_union([columns[at] for at in dict.fromkeys(term)]) for term in terms]
        case steps.Normalise():
            return [_union(columns)] * len(columns)
    width = step.width(len(columns))
    if _takes_nan(step):
        return [0] * width
    # Every other step makes the same number of columns from each.
    return [column for column in columns for _ in range(width // len(columns))] if columns else []


def _takes_nan(step: steps.Step) -> bool:
    match step:
        case steps.Fill(values, missing):
            return missing is None and None not in values
        case steps.IsMissing():
            return True
        case steps.Apply(function):
            return function in _ANSWERS
        case steps.Spline():
            return step.missing == "zeros"
    return isinstance(step, _TAKE_NAN)


def _union(columns: Columns) -> int:
    found = 0
    for column in columns:
        found |= column
    return found
