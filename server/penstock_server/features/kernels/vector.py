"""Four float64 at once, as one value of a kernel: LLVM makes vector instructions of them wherever the processor has some.

numba leaves such code to LLVM's search for it, which it switches off.
"""

from typing import Any, Final

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

_types: Any = numba.types
_FOUR: Final = ir.VectorType(ir.DoubleType(), 4)
_INDEX: Final = ir.IntType(32)


_register: Any = register_model
_cgutils: Any = cgutils
_models: Any = models


class FourType(_types.Type):  # type: ignore[misc]  # numba has no types
    """The type of such a value."""

    def __init__(self) -> None:
        super().__init__(name="Four")


_type: Any = FourType
FOUR: Final[Any] = _type()


@_register(FourType)
class _FourModel(_models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FOUR)


def _pointer(context: Any, builder: Any, array: Any, at: Any, value: Any) -> Any:
    data = context.make_array(array)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [at]), _FOUR.as_pointer())


def _load(_context: Any, array: Any, at: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        loaded = builder.load(_pointer(context, builder, signature.args[0], arguments[1], arguments[0]))
        loaded.align = 8
        return loaded

    return FOUR(array, at), generate


def _store(_context: Any, array: Any, at: Any, values: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        stored = builder.store(arguments[2], _pointer(context, builder, signature.args[0], arguments[1], arguments[0]))
        stored.align = 8
        return context.get_dummy_value()

    return _types.void(array, at, values), generate


def _each(_context: Any, _value: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        one = builder.insert_element(ir.Constant(_FOUR, ir.Undefined), arguments[0], _INDEX(0))
        return builder.shuffle_vector(
            one, ir.Constant(_FOUR, ir.Undefined), ir.Constant(ir.VectorType(_INDEX, 4), [0] * 4)
        )

    return FOUR(_types.float64), generate


def _binary(operation: str) -> Any:
    def typed(_context: Any, left: Any, right: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return getattr(builder, operation)(*arguments)

        return FOUR(left, right), generate

    return typed


def _fused(_context: Any, left: Any, right: Any, addend: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_FOUR, [_FOUR] * 3)
        return builder.call(_cgutils.get_or_insert_function(builder.module, kind, "llvm.fma.v4f64"), arguments)

    return FOUR(left, right, addend), generate


load: Final[Any] = intrinsic(_load)
"""load(reals, at): four reals at a position."""
store: Final[Any] = intrinsic(_store)
"""store(reals, at, four): puts them there."""
each: Final[Any] = intrinsic(_each)
"""each(real): it four times."""
plus: Final[Any] = intrinsic(_binary("fadd"))
minus: Final[Any] = intrinsic(_binary("fsub"))
times: Final[Any] = intrinsic(_binary("fmul"))
over: Final[Any] = intrinsic(_binary("fdiv"))
fused: Final[Any] = intrinsic(_fused)
"""fused(a, b, c): a * b + c, rounded once."""
