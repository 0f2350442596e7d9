"""Which numbers of a version's answers can be watched for drift, and whether a baseline watches such.

Publishing chooses by it, and loading checks it: a baseline comes with the version's files, and says which outputs are counted.
"""

from collections.abc import Sequence
from math import prod
from typing import Final

from penstock_server.drift.baseline import Baseline, Reads
from penstock_server.errors import InvalidInputError
from penstock_server.models.signature import ANY, TensorInfo

FLOATS: Final = frozenset({"FP32", "FP64"})
_NUMBERS: Final = FLOATS | {"INT64"}
"""What the kernels that count answers read."""


def can_be_watched(spec: TensorInfo, reads: Reads) -> bool:
    """Whether an output is one number per row, or several of which the largest is read."""
    tail = spec.shape[1:]
    if spec.datatype not in _NUMBERS or not spec.shape or ANY in tail:
        return False
    return prod(tail) == 1 if reads == "value" else len(tail) == 1 and tail[0] > 1


def check(baseline: Baseline, outputs: Sequence[TensorInfo]) -> None:
    """Checks that the answers that a baseline watches are among a version's outputs.

    Raises:
        InvalidInputError: one is not; names it.
    """
    specs = {spec.name: spec for spec in outputs}
    for answer in baseline.answers:
        spec = specs.get(answer.output)
        if spec is None or not can_be_watched(spec, answer.reads):
            expected = "one number per row" if answer.reads == "value" else "several numbers per row"
            there = "there is none" if spec is None else f"it is {spec.datatype} of shape {list(spec.shape)}"
            raise InvalidInputError(
                f"the drift baseline watches {answer.name!r}, for which output {answer.output!r} must have {expected}; {there}"
            )
