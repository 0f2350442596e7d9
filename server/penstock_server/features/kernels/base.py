"""What the kernels are made of: how a function is compiled, and the memory that it sees.

Only the other kernels import this, and numba with it.
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
_FLOAT64: Final[Any] = _numba.types.float64

Function = TypeVar("Function", bound=Callable[..., Any])


class Program(NamedTuple):
    """One block of memory, seen as integers and as reals."""

    words: Any
    reals: Any


class Batch(NamedTuple):
    """The raw rows, and where their features and their counts go; `counts` are not touched unless it `is_counting`.

    The same output is seen as both of its possible types; `is_double` says which is true. from `begin` on,
    `cursors` hold for each of `strings_count` columns where the elements of a block of rows begin, and then for each where
    those of the next block do.
    """

    numbers: Any
    strings: Any
    cursors: Any
    begin: int
    strings_count: int
    singles: Any
    doubles: Any
    counts: Any
    refused: Any
    is_double: bool
    is_counting: bool
    is_recording: bool


class Block(NamedTuple):
    """The rows that are worked on together: the first one's place in the batch, and how many."""

    first: int
    rows: int


def kernel(function: Function) -> Function:
    """Compiles for use by other kernels; division by zero gives an infinity, as in numpy.

    Without numba's run time: an allocation does not compile, and an array that is looked at is not counted, which would
    take ten times the work itself. numba allows LLVM neither to fuse nor to reorder what is rounded.
    """
    return cast("Function", _numba.njit(nogil=True, error_model="numpy", _nrt=False)(function))


def inlined(function: Function) -> Function:
    """A `kernel` that is always put where it is called: for what is too small for a call and in the innermost loops."""
    return cast("Function", _numba.njit(nogil=True, error_model="numpy", _nrt=False, forceinline=True)(function))


def entry(*arguments: Any) -> Callable[[Function], Function]:
    """Compiles a function that C may call by its address, with these arguments, for a 64-bit integer."""
    return cast("Callable[[Function], Function]", _numba.cfunc(INT64(*arguments), error_model="numpy"))


def c_function(name: str, arguments: int = 1) -> Any:
    """A function of the C mathematical library, of float64s to float64."""
    return _numba.types.ExternalFunction(name, _FLOAT64(*[_FLOAT64] * arguments))


def _bytes_at(_context: Any, _array: Any, _at: Any, result: Any) -> Any:
    """The integer of type `result` in an array of bytes from a place on: one load, wherever it lies and whatever is there.

    Written with indices it is eight loads, since each might count from the end.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        from llvmlite import ir

        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        size = ir.IntType(result.bitwidth)
        place = builder.bitcast(builder.gep(data, [arguments[1]]), size.as_pointer())
        loaded = builder.load(place)
        loaded.align = 1
        return builder.zext(loaded, ir.IntType(64))

    return generate


def _word_at(context: Any, array: Any, at: Any) -> Any:
    """The eight bytes that stand there, little-endian, as uint64."""
    unsigned = _numba.types.uint64
    return unsigned(array, INT64), _bytes_at(context, array, at, unsigned)


def _half_word_at(context: Any, array: Any, at: Any) -> Any:
    """The four bytes that stand there, little-endian, as uint64."""
    return _numba.types.uint64(array, INT64), _bytes_at(context, array, at, _numba.types.uint32)


word_at: Final[Any] = intrinsic(_word_at)
half_word_at: Final[Any] = intrinsic(_half_word_at)
