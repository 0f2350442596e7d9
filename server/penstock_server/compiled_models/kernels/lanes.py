"""Sixteen numbers at once, one of each of `LANES` rows, as one value of a kernel: vectors of whatever width there is.

numba leaves such code to LLVM's search for it, which it switches off.
"""

from typing import Any, Final

import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

from penstock_server.compiled_models.layout import LANES

_types: Any = numba.types
_register: Any = register_model
_models: Any = models
_cgutils: Any = cgutils
_INDEX: Final = ir.IntType(32)


class LanesType(_types.Type):  # type: ignore[misc]  # numba has no types
    """The type of such a value: of one element per lane."""

    def __init__(self, name: str, element: Any) -> None:
        self.vector = ir.VectorType(element, LANES)
        super().__init__(name=name)


@_register(LanesType)
class _LanesModel(_models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, kind.vector)


_lanes: Any = LanesType
SINGLES: Final[Any] = _lanes("Singles", ir.FloatType())
DOUBLES: Final[Any] = _lanes("Doubles", ir.DoubleType())
HALF_WORDS: Final[Any] = _lanes("HalfWords", ir.IntType(32))
WORDS: Final[Any] = _lanes("Words", ir.IntType(64))
TRUTHS: Final[Any] = _lanes("Truths", ir.IntType(1))

_OF: Final[dict[Any, Any]] = {
    _types.float32: SINGLES,
    _types.float64: DOUBLES,
    _types.int32: HALF_WORDS,
    _types.int64: WORDS,
}


def _pointer(context: Any, builder: Any, array: Any, kind: Any, value: Any, at: Any) -> Any:
    data = context.make_array(array)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [at]), kind.vector.as_pointer())


def _splat(builder: Any, kind: Any, value: Any) -> Any:
    undefined = ir.Constant(kind.vector, ir.Undefined)
    one = builder.insert_element(undefined, value, _INDEX(0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_INDEX, LANES), [0] * LANES))


def _load(_context: Any, array: Any, at: Any) -> Any:
    kind = _OF[array.dtype]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        loaded = builder.load(_pointer(context, builder, signature.args[0], kind, *arguments))
        loaded.align = array.dtype.bitwidth // 8
        return loaded

    return kind(array, at), generate


def _store(_context: Any, array: Any, at: Any, values: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _pointer(context, builder, signature.args[0], values, *arguments[:2])
        builder.store(arguments[2], place).align = array.dtype.bitwidth // 8
        return context.get_dummy_value()

    return _types.void(array, at, values), generate


def _each(_context: Any, value: Any) -> Any:
    kind = _OF[value]

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _splat(builder, kind, arguments[0])

    return kind(value), generate


def _plus(_context: Any, left: Any, right: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fadd(*arguments)

    return left(left, right), generate


def _compared(*, is_missing_too: bool) -> Any:
    def typed(_context: Any, values: Any, bound: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            found = builder.fcmp_ordered("<=", arguments[0], _splat(builder, values, arguments[1]))
            # The bound may be NaN too, and then nothing else is up to it.
            missing = builder.fcmp_unordered("uno", arguments[0], arguments[0])
            return builder.or_(found, missing) if is_missing_too else found

        return TRUTHS(values, bound), generate

    return typed


def _chosen(_context: Any, where: Any, one: Any, other: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.select(*arguments)

    return one(where, one, other), generate


def _masked(_context: Any, bits: Any, where: Any, mask: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        every = ir.Constant(bits.vector, [-1] * LANES)
        return builder.and_(arguments[0], builder.select(arguments[1], every, _splat(builder, bits, arguments[2])))

    return bits(bits, where, mask), generate


def _lowest(_context: Any, bits: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        width = bits.vector.element.width
        kind = ir.FunctionType(bits.vector, [bits.vector, ir.IntType(1)])
        count = _cgutils.get_or_insert_function(builder.module, kind, f"llvm.cttz.v{LANES}i{width}")
        found = builder.call(count, [arguments[0], ir.Constant(ir.IntType(1), 1)])
        return found if bits is HALF_WORDS else builder.trunc(found, HALF_WORDS.vector)

    return HALF_WORDS(bits), generate


def _fused(_context: Any, values: Any, factor: Any, addend: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        width = 32 if values is SINGLES else 64
        kind = ir.FunctionType(values.vector, [values.vector] * 3)
        multiply_add = _cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{LANES}f{width}")
        return builder.call(multiply_add, [arguments[0], _splat(builder, values, arguments[1]), arguments[2]])

    return values(values, factor, addend), generate


def _taken(_context: Any, table: Any, start: Any, places: Any) -> Any:
    kind = _OF[table.dtype]

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        first, found = builder.gep(data, [arguments[1]]), ir.Constant(kind.vector, ir.Undefined)
        for lane in range(LANES):
            place = builder.zext(builder.extract_element(arguments[2], _INDEX(lane)), ir.IntType(64))
            found = builder.insert_element(found, builder.load(builder.gep(first, [place])), _INDEX(lane))
        return found

    return kind(table, start, places), generate


load: Final[Any] = intrinsic(_load)
"""load(array, at): the elements of all lanes from a position on."""
store: Final[Any] = intrinsic(_store)
"""store(array, at, lanes): puts them there."""
each: Final[Any] = intrinsic(_each)
"""each(number): it in every lane."""
plus: Final[Any] = intrinsic(_plus)
at_most: Final[Any] = intrinsic(_compared(is_missing_too=False))
"""at_most(lanes, bound): where they are up to it; NaN is not."""
not_above: Final[Any] = intrinsic(_compared(is_missing_too=True))
"""not_above(lanes, bound): where they are up to it; NaN is."""
chosen: Final[Any] = intrinsic(_chosen)
"""chosen(where, one, other): the one where it is true, else the other."""
masked: Final[Any] = intrinsic(_masked)
"""masked(bits, where, mask): the bits, of which only those of the mask stay where it is not true."""
lowest: Final[Any] = intrinsic(_lowest)
"""lowest(bits): the place of the lowest bit of each lane; there is one."""
fused: Final[Any] = intrinsic(_fused)
"""fused(lanes, factor, addends): each lane times the factor plus its addend, rounded once."""
taken: Final[Any] = intrinsic(_taken)
"""taken(table, start, places): what stands in the table at a start plus each lane's place."""
