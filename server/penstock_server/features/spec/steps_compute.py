"""The step of expressions: arithmetic, comparisons, choices and functions over the columns of a row.

A traced function becomes one `Compute`. Its operations are a list, each over columns and earlier operations, so that parts
which several results share are computed once, and no nesting is deep.
"""

from typing import Final, Literal, get_args

import msgspec

from penstock_server.features.spec import limits
from penstock_server.features.spec.limits import Real
from penstock_server.features.spec.step_base import Name, StepBase
from penstock_server.features.spec.steps_value import FUNCTIONS

FunctionOfTwo = Literal[
    "add", "arctan2", "copysign", "divide", "equal", "floor_divide", "fmax", "fmin", "fmod", "greater", "greater_equal",
    "hypot", "less", "less_equal", "logical_and", "logical_or", "logical_xor", "maximum", "minimum", "multiply",
    "not_equal", "power", "remainder", "subtract",
]  # fmt: skip
"""The functions of two values, by their names in numpy."""

FUNCTIONS_OF_TWO: tuple[str, ...] = get_args(FunctionOfTwo)
CONSTANT: Final = "constant"
WHERE: Final = "where"
ARITY: Final[dict[str, int]] = {
    CONSTANT: 0,
    **dict.fromkeys(FUNCTIONS, 1),
    **dict.fromkeys(FUNCTIONS_OF_TWO, 2),
    WHERE: 3,
}
"""How many values each function takes."""

MAX_OPERATIONS: Final = 8192
"""The most operations of a step."""


class Operation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One function of earlier values, or a constant.

    Attributes:
        function: by its name in numpy, or "constant".
        of: what it takes: a column below the number of columns that reach the step, or that number plus an operation's place.
        value: a constant's, finite or NaN (None).
    """

    function: str
    of: tuple[int, ...] = ()
    value: Real = None

    def __post_init__(self) -> None:
        if self.function not in ARITY:
            raise ValueError(f"function {self.function[:40]!r} is unknown, expected one of {', '.join(ARITY)}")
        if len(self.of) != ARITY[self.function]:
            raise ValueError(f"{self.function} takes {ARITY[self.function]} values, got {len(self.of)}")
        if self.function == CONSTANT:
            limits.real(self, "value")
        elif self.value is not None:
            raise ValueError(f"{self.function} has a value, which only a constant has")


class Compute(StepBase, frozen=True, tag="compute"):
    """Each output is a column, or an operation over columns and earlier operations, in float64.

    Functions of one value are those of `Apply`. Functions of two give numpy's result for float64 to the last bit, but for
    `power`, `hypot` and `arctan2`, which come from the C library and differ by at most 4 units in the last place. Comparisons
    and logical functions give 1.0 and 0.0; what is not 0 is true, NaN too. `where` takes a condition, the value where it is
    true, and the value where it is not.

    Attributes:
        operations: in an order in which each needs only earlier ones.
        outputs: the values that come out.
        labels: the outputs' names for people; none, or one for each.
        required: values that must be true in every row; where one is 0 the row's request is refused.
    """

    operations: tuple[Operation, ...]
    outputs: tuple[int, ...]
    labels: tuple[str, ...] = ()
    required: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        limits.at_most("operations", len(self.operations), MAX_OPERATIONS)
        limits.some(self, "outputs")
        limits.at_most("outputs", len(self.outputs), limits.MAX_WIDTH)
        limits.at_most("required values", len(self.required), MAX_OPERATIONS)
        if self.labels and len(self.labels) != len(self.outputs):
            raise ValueError(f"labels has {len(self.labels)} entries for {len(self.outputs)} outputs, expected as many")
        for label in self.labels:
            limits.name(label)

    def check(self, width: int) -> None:
        for at, operation in enumerate(self.operations):
            for source in operation.of:
                limits.between(f"a value of operations[{at}] ({operation.function})", source, 0, width + at - 1)
        last = width + len(self.operations) - 1
        for field in ("outputs", "required"):
            for source in getattr(self, field):
                limits.between(f"a value in {field}", source, 0, last)

    def width(self, width: int) -> int:  # noqa: ARG002 - as all steps have it
        return len(self.outputs)

    def names(self, names: tuple[Name, ...]) -> tuple[Name, ...]:
        if self.labels:
            return tuple(map(Name, self.labels))
        return tuple(
            names[source] if source < len(names) else Name(_described(self, source - len(names), names))
            for source in self.outputs
        )


def _described(step: Compute, at: int, names: tuple[Name, ...]) -> str:
    """A name for an operation: its function and what it takes, without theirs."""
    operation = step.operations[at]
    if operation.function == CONSTANT:
        return f"{operation.value}"
    taken = ", ".join(names[source].text if source < len(names) else "..." for source in operation.of)
    return f"{operation.function}({taken})"
