"""Finds the raw columns whose NaN can reach the model, because no step on the way handles it.

Such a step fills, tests or encodes missing values. `pipeline` refuses a missing value in a column found here if the
training rows had none.
"""

from penstock_server.features.spec import steps
from penstock_server.features.spec.blocks import Block, Join, Take, Text, Time
from penstock_server.features.spec.spec import FeatureSpec
from penstock_server.features.spec.steps_compute import WHERE

_TAKE_NAN = (steps.Bucket, steps.Match, steps.OneHot, steps.Lookup, steps.Binarise)
_ANSWERS = frozenset({"isnan", "isinf", "isfinite", "logical_not"})
_ANSWERS_OF_TWO = _ANSWERS | {
    "equal", "greater", "greater_equal", "less", "less_equal", "logical_and", "logical_or", "logical_xor", "not_equal",
}  # fmt: skip

# For each column, the raw columns whose NaN it can have, as bits of an integer: sets would be large for a wide block.
Columns = list[int]


def reaching(spec: FeatureSpec) -> frozenset[str]:
    """The names of the number and time columns whose missing values reach an output as NaN."""
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
        case Time(column, parts):
            found = [0 if part.startswith("is_") else bit[column] for part in parts]
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
        case steps.Compute():
            return _computed(step, columns)
    width = step.width(len(columns))
    if _takes_nan(step):
        return [0] * width
    # Every other step makes the same number of columns from each.
    return [column for column in columns for _ in range(width // len(columns))] if columns else []


def _computed(step: steps.Compute, columns: Columns) -> Columns:
    """What each output of expressions can have. A column that is tested for NaN is taken to be replaced by the test."""
    found = list(columns)
    for operation in step.operations:
        found.append(_operation(operation, found, step, len(columns)))
    return [found[at] for at in step.outputs]


def _operation(operation: steps.Operation, found: Columns, step: steps.Compute, width: int) -> int:
    taken = [found[at] for at in operation.of]
    if operation.function in _ANSWERS_OF_TWO:
        return 0
    if operation.function in {"fmax", "fmin"}:
        return taken[0] & taken[1]
    if operation.function != WHERE:
        return _union(taken)
    # `where(isnan(x), filled, x)`: NaN of x is not what comes out.
    condition, chosen, other = operation.of
    test = step.operations[condition - width] if condition >= width else None
    replaced = found[other] if test is not None and test.function == "isnan" and test.of[0] == other else 0
    return found[chosen] | (found[other] & ~replaced)


def _takes_nan(step: steps.Step) -> bool:
    match step:
        case steps.Fill(values, missing):
            return missing is None and None not in values
        case steps.IsMissing():
            return True
        case steps.Refuse(missing):
            return missing
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
