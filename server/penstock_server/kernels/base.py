"""What all kernels share: how a function is compiled, and what it may call.

Only kernels import this, and numba with it.
"""

import ctypes
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

import numba
from llvmlite import binding, ir
from numba.extending import intrinsic

# numba's own type hints describe only its simplest use.
_numba: Any = numba
carray: Final[Any] = _numba.carray
POINTER: Final[Any] = _numba.types.voidptr
VOID: Final[Any] = _numba.types.void
INT32: Final[Any] = _numba.types.int32
INT64: Final[Any] = _numba.types.int64
UINT8: Final[Any] = _numba.types.uint8
UINT32: Final[Any] = _numba.types.uint32
UINT64: Final[Any] = _numba.types.uint64
_FLOAT64: Final[Any] = _numba.types.float64

Kernel = TypeVar("Kernel", bound=Callable[..., Any])


def kernel(function: Kernel) -> Kernel:
    """Compiles for use by other kernels; division by zero gives an infinity, as in numpy.

    It compiles without numba's run time: an allocation is a compile error, and reading an array counts no reference,
    which would cost ten times the work itself. numba lets LLVM neither fuse nor reorder what is rounded.
    """
    return kernel_with(function)


def inlined(function: Kernel) -> Kernel:
    """A `kernel` that LLVM always inlines: for small functions in the innermost loops."""
    return kernel_with(function, forceinline=True)


def spliced(function: Kernel) -> Kernel:
    """A `kernel` with one caller, into whose code numba puts it: LLVM optimises once what it else would once for each level."""
    return kernel_with(function, inline="always")


def kernel_with(function: Kernel, **options: Any) -> Kernel:
    """A `kernel` with more of numba's options.

    Python cannot call it, nor C: the wrappers for that are a quarter of the time to compile, and no kernel has them in the end.
    """
    wrappers = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return cast("Kernel", _numba.njit(nogil=True, error_model="numpy", _nrt=False, **wrappers, **options)(function))


def entry_point(*arguments: Any, result: Any = INT64) -> Callable[[Kernel], Kernel]:
    """Compiles a function that C can call by its address, with these arguments."""
    return cast("Callable[[Kernel], Kernel]", _numba.cfunc(result(*arguments), error_model="numpy"))


def external(name: str, result: Any, *arguments: Any) -> Any:
    """A function of a C library, found by its name when the kernels are loaded (`KernelSet.libraries`), not when compiled."""
    process = ctypes.CDLL(None)
    if not hasattr(process, name):
        # numba links at once what it compiles. Nothing calls the function in the process that compiles.
        binding.add_symbol(name, ctypes.cast(process.abort, ctypes.c_void_p).value)
    return _numba.types.ExternalFunction(name, result(*map(_passed, arguments)))


def c_function(name: str, arguments: int = 1) -> Any:
    """A function of the C mathematical library, of float64s to float64."""
    return external(name, _FLOAT64, *[_FLOAT64] * arguments)


def _passed(argument: Any) -> Any:
    """As which type an argument is passed: C compilers may rely on the caller to extend a small integer to 32 bits."""
    if argument not in _numba.types.integer_domain or argument.bitwidth >= INT32.bitwidth:
        return argument
    return INT32 if argument.signed else UINT32


def _pointer(_context: Any, _address: Any) -> Any:
    """The pointer to an address."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(POINTER))

    return POINTER(INT64), generate


def _address(_context: Any, _pointer: Any) -> Any:
    """The address that a pointer points to."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.ptrtoint(arguments[0], ir.IntType(64))

    return INT64(POINTER), generate


pointer: Final[Any] = intrinsic(_pointer)
address: Final[Any] = intrinsic(_address)


def _called(_context: Any, _function: Any, words: Any) -> Any:
    """What a function at an address gives for some words; an `entry_point` of another set is one."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        given = [builder.extract_value(arguments[1], at) for at in range(len(words))]
        kind = ir.FunctionType(word, [word] * len(given)).as_pointer()
        return builder.call(builder.inttoptr(arguments[0], kind), given)

    return INT64(INT64, words), generate


call: Final[Callable[[int, tuple[int, ...]], int]] = cast("Any", intrinsic(_called))


def _bytes_at(_context: Any, _array: Any, _at: Any, result: Any) -> Any:
    """The integer of type `result` at a position in an array of bytes: one load, aligned or not.

    Written with indices it would be eight loads, since numba checks each for a negative index.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        size = ir.IntType(result.bitwidth)
        place = builder.bitcast(builder.gep(data, [arguments[1]]), size.as_pointer())
        loaded = builder.load(place)
        loaded.align = 1
        return builder.zext(loaded, ir.IntType(64))

    return generate


def _word_at(context: Any, array: Any, at: Any) -> Any:
    """The eight bytes at a position, little-endian, as uint64."""
    unsigned = _numba.types.uint64
    return unsigned(array, INT64), _bytes_at(context, array, at, unsigned)


def _half_word_at(context: Any, array: Any, at: Any) -> Any:
    """The four bytes at a position, little-endian, as uint64."""
    return _numba.types.uint64(array, INT64), _bytes_at(context, array, at, _numba.types.uint32)


word_at: Final[Any] = intrinsic(_word_at)
half_word_at: Final[Any] = intrinsic(_half_word_at)
