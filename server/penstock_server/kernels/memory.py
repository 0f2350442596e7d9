"""Memory by its address, as C has it: C libraries and the system speak in pointers.

An address is a 64-bit integer. Nothing here checks a bound: who calls knows that the bytes are there.
"""

from collections.abc import Callable
from typing import Any, Final, cast

import numba
from llvmlite import ir
from numba.extending import intrinsic

from penstock_server.kernels.base import INT32, INT64, VOID, external

_numba: Any = numba
_FLOAT64: Final[Any] = _numba.types.float64


def _load(bits: int, *, signed: bool) -> Any:
    def typed(_context: Any, _at: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            place = builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer())
            loaded = builder.load(place)
            loaded.align = 1
            if bits == 64:
                return loaded
            return (builder.sext if signed else builder.zext)(loaded, ir.IntType(64))

        return INT64(INT64), generate

    return intrinsic(typed)


def _store(bits: int) -> Any:
    def typed(_context: Any, _at: Any, _value: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            place = builder.inttoptr(arguments[0], ir.IntType(bits).as_pointer())
            value = arguments[1] if bits == 64 else builder.trunc(arguments[1], ir.IntType(bits))
            builder.store(value, place).align = 1
            return context.get_dummy_value()

        return VOID(INT64, INT64), generate

    return intrinsic(typed)


def _load_real(bits: int) -> Any:
    def typed(_context: Any, _at: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            kind = ir.DoubleType() if bits == 64 else ir.FloatType()
            loaded = builder.load(builder.inttoptr(arguments[0], kind.as_pointer()))
            loaded.align = 1
            return loaded if bits == 64 else builder.fpext(loaded, ir.DoubleType())

        return _FLOAT64(INT64), generate

    return intrinsic(typed)


def _store_real(bits: int) -> Any:
    def typed(_context: Any, _at: Any, _value: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            kind = ir.DoubleType() if bits == 64 else ir.FloatType()
            place = builder.inttoptr(arguments[0], kind.as_pointer())
            value = arguments[1] if bits == 64 else builder.fptrunc(arguments[1], kind)
            builder.store(value, place).align = 1
            return context.get_dummy_value()

        return VOID(INT64, _FLOAT64), generate

    return intrinsic(typed)


def _store_shared(ordering: str) -> Any:
    def typed(_context: Any, _at: Any, _value: Any) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            place = builder.inttoptr(arguments[0], ir.IntType(64).as_pointer())
            builder.store_atomic(arguments[1], place, ordering=ordering, align=8)
            return context.get_dummy_value()

        return VOID(INT64, INT64), generate

    return intrinsic(typed)


def _wrapped(_context: Any, _value: Any) -> Any:
    def generate(_context: Any, _builder: Any, _signature: Any, arguments: Any) -> Any:
        return arguments[0]

    return INT64(INT64), generate


wrapped: Final[Callable[[int], int]] = cast("Any", intrinsic(_wrapped))
"""The lowest 64 bits of an integer as a signed one: in compiled code, what it is already."""
publish: Final[Callable[[int, int], None]] = _store_shared("seq_cst")
"""Sets an aligned word that another process reads: what was written before is there when it is, and nothing that is later."""
publish_last: Final[Callable[[int, int], None]] = _store_shared("release")
"""The same, but what is written later may be there before it; that costs nothing."""
double_at: Final[Callable[[int], float]] = _load_real(64)
single_at: Final[Callable[[int], float]] = _load_real(32)
"""The float32 at an address, as float64."""
set_double: Final[Callable[[int, float], None]] = _store_real(64)
set_single: Final[Callable[[int, float], None]] = _store_real(32)
"""Writes a float64 rounded to float32."""
word: Final[Callable[[int], int]] = _load(64, signed=True)
"""The 64-bit integer at an address."""
int32: Final[Callable[[int], int]] = _load(32, signed=True)
uint32: Final[Callable[[int], int]] = _load(32, signed=False)
uint8: Final[Callable[[int], int]] = _load(8, signed=False)
set_word: Final[Callable[[int, int], None]] = _store(64)
set_uint32: Final[Callable[[int, int], None]] = _store(32)
set_uint8: Final[Callable[[int, int], None]] = _store(8)

allocate: Final[Callable[..., int]] = external("malloc", INT64, INT64)
resize: Final[Callable[..., int]] = external("realloc", INT64, INT64, INT64)
release: Final[Callable[..., int]] = external("free", INT32, INT64)
copy: Final[Callable[..., int]] = external("memcpy", INT64, INT64, INT64, INT64)
move: Final[Callable[..., int]] = external("memmove", INT64, INT64, INT64, INT64)
compare: Final[Callable[..., int]] = external("memcmp", INT32, INT64, INT64, INT64)
