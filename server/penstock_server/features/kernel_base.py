"""What the kernels are made of: how a function is compiled, and the memory that it sees.

Only `kernels` and the files of its parts import this, and numba with it.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar, cast

import numba
from numba.extending import intrinsic

# numba's own types describe its plainest use only.
_numba: Any = numba
carray: Final[Any] = _numba.carray
POINTER: Final[Any] = _numba.types.voidptr
INT64: Final[Any] = _numba.types.int64

BLOCK: Final = 256
"""How many values of a column go through a step at a time: two blocks stay in the first-level cache."""

Function = TypeVar("Function", bound=Callable[..., Any])


class Program(NamedTuple):
    """One block of memory, seen as integers and as reals."""

    words: Any
    reals: Any


class Batch(NamedTuple):
    """The raw rows and where their features and their counts go; `cells` is not touched unless `counting`.

    `values` and `bins` hold `BLOCK` float64 each, for the block of a column that is being worked on.
    """

    numbers: Any
    strings: Any
    out: Any
    cells: Any
    counting: int
    values: Any
    bins: Any


def kernel(function: Function) -> Function:
    """Compiles for use by other kernels; division by zero gives an infinity, as in numpy.

    Without numba's run time: an allocation does not compile, and an array that is looked at is not counted, which would
    take ten times the work itself.
    """
    return cast("Function", _numba.njit(nogil=True, error_model="numpy", _nrt=False)(function))


def entry(*arguments: Any) -> Callable[[Function], Function]:
    """Compiles a function that C may call by its address, with these arguments, for a 64-bit integer."""
    return cast("Callable[[Function], Function]", _numba.cfunc(INT64(*arguments), error_model="numpy"))


def _stack_block(_context: Any) -> Any:
    """The address of a new block of float64 on the stack of the function that asks; it lives as long as the call."""
    from llvmlite import ir

    def generate(_target: Any, builder: Any, _signature: Any, _arguments: Any) -> Any:
        block = ir.ArrayType(ir.DoubleType(), BLOCK)
        with builder.goto_entry_block():
            return builder.bitcast(builder.alloca(block), ir.IntType(8).as_pointer())

    return POINTER(), generate


stack_block: Final[Any] = intrinsic(_stack_block)
