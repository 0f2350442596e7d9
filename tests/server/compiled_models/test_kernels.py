"""The kernels as plain Python over numpy's arrays, which check each index: they read and write nothing that is not theirs.

A kernel's module is read again with other names for what it imports: `kernel` leaves a function as it is, and lanes are arrays.
"""

import ctypes
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock_server.compiled_models import layout
from penstock_server.compiled_models.compiled_model import CompiledModel
from penstock_server.compiled_models.program import ModelProgram
from penstock_server.compiled_models.proof import is_same
from tests.examples import examples
from tests.server.compiled_models.graphs import compiled, ensembles, model_of, node, regressor, rows_for, session
from tests.server.compiled_models.test_compiled_model import CASES, CONSTANTS
from tests.server.plain.uncompiled import module

LANES = layout.LANES
_C: Any = ctypes.CDLL("libm.so.6")
for _name in ("fmaf", "expf"):
    getattr(_C, _name).restype = ctypes.c_float
    getattr(_C, _name).argtypes = [ctypes.c_float] * (3 if _name == "fmaf" else 1)


def plain_lanes() -> ModuleType:
    """The lanes of `kernels.lanes` as arrays."""
    made = ModuleType("lanes")

    def load(array: NDArray[Any], at: Any) -> NDArray[Any]:
        found = array[int(at) : int(at) + LANES]
        assert len(found) == LANES
        return found.copy()

    def store(array: NDArray[Any], at: Any, values: NDArray[Any]) -> None:
        assert int(at) + LANES <= len(array)
        array[int(at) : int(at) + LANES] = values

    def lowest(bits: NDArray[Any]) -> NDArray[np.int32]:
        return np.array([(int(each) & -int(each)).bit_length() - 1 for each in bits.tolist()], np.int32)

    def taken(table: NDArray[Any], start: Any, places: NDArray[np.int32]) -> NDArray[Any]:
        assert (places >= 0).all()
        return np.array([table[int(start) + int(place)] for place in places], table.dtype)

    def fused(values: NDArray[Any], factor: Any, addends: NDArray[Any]) -> NDArray[Any]:
        return np.array(
            [_C.fmaf(value, factor, addend) for value, addend in zip(values, addends, strict=True)], np.float32
        )

    made.__dict__.update(
        load=load,
        store=store,
        each=lambda value: np.full(LANES, value),
        plus=lambda one, other: one + other,
        at_most=lambda values, bound: values <= bound,
        not_above=lambda values, bound: (values <= bound) | np.isnan(values),
        chosen=np.where,
        masked=lambda bits, where, mask: bits & np.where(where, bits.dtype.type(-1), mask),
        lowest=lowest,
        taken=taken,
        fused=fused,
    )
    return made


def plain() -> ModuleType:
    """The module `entry`, uncompiled."""
    base, numba, llvmlite, extending, cgutils = (
        ModuleType(name) for name in ("base", "numba", "llvmlite", "extending", "core")
    )
    same = lambda function: function  # noqa: E731
    base.__dict__.update(
        kernel=same, inlined=same, spliced=same, entry_point=lambda *_: same, carray=None, pointer=None,
        INT64=None, POINTER=None,
        external=lambda *_: lambda value: np.float32(_C.expf(value)),
    )  # fmt: skip
    numba.__dict__["types"] = ModuleType("types")
    numba.__dict__["types"].__dict__["float32"] = None
    llvmlite.__dict__["ir"] = None
    cgutils.__dict__["cgutils"] = None
    # In the order in which `mathematics` makes them.
    intrinsics = iter((lambda a, b, c: np.float32(_C.fmaf(a, b, c)), lambda power: 2.0 ** int(power)))
    extending.__dict__["intrinsic"] = lambda _: next(intrinsics)
    names = {
        "penstock_server.kernels.base": base, "numba": numba, "llvmlite": llvmlite, "numba.extending": extending,
        "numba.core": cgutils, "penstock_server.compiled_models.kernels.lanes": plain_lanes(),
    }  # fmt: skip
    mathematics = module("penstock_server.compiled_models.kernels.mathematics", **names)
    names["penstock_server.compiled_models.kernels.mathematics"] = mathematics
    forest = module("penstock_server.compiled_models.kernels.forest", **names)
    names["penstock_server.compiled_models.kernels.forest"] = forest
    package = ModuleType("kernels")
    package.__dict__["forest"] = forest
    names["penstock_server.compiled_models.kernels"] = package
    return module("penstock_server.compiled_models.kernels.entry", **names)


ENTRY = plain()


def run(program: ModelProgram, matrix: NDArray[Any]) -> list[NDArray[Any]]:
    """What the kernels make of a matrix, over memory that ends where it must."""

    def memory(words: NDArray[np.int64]) -> Any:
        return ENTRY.Memory(words, words.view(np.float64), words.view(np.float32), words.view(np.int32))

    def padded(array: NDArray[Any]) -> Any:
        raw = array.tobytes()
        return memory(np.frombuffer(bytearray(raw + bytes(-len(raw) % 8)), np.int64))

    rows = len(matrix)
    dtypes = (np.float32, np.float64, np.int64)
    empty = [
        np.zeros(rows if result.is_flat else (rows, result.width), dtypes[result.kind]) for result in program.results
    ]
    outs = [padded(array) for array in empty]
    scratch = memory(np.zeros(program.scratch_bytes // 8, np.int64))
    with np.errstate(all="ignore"):
        ENTRY.run_all(
            memory(program.block.copy()),
            scratch,
            padded(matrix),
            np.uint64(rows),
            ENTRY.Outs(outs[0], outs[1 % len(outs)], outs[-1]),
        )
    return [
        np.frombuffer(out.words.tobytes(), array.dtype, array.size).reshape(array.shape)
        for out, array in zip(outs, empty, strict=True)
    ]


def assert_equal(content: bytes, columns: int, dtype: Any = np.float32) -> None:
    program, theirs = compiled(content, columns=columns, dtype=dtype), session(content)
    ours = CompiledModel(program)
    for size in (1, 2, 5, 18):
        rows = rows_for(columns, size, dtype, seed=size)
        found = run(program, rows)
        assert all(map(is_same, ours.run(rows.tobytes(), size), found)), size
        expected = [
            array if result.texts is None else np.array([result.texts.index(text) for text in array])
            for array, result in zip(theirs.run(None, {"x": rows}), program.results, strict=True)
        ]
        assert all(map(is_same, expected, found)), size


@given(ensembles(), st.sampled_from([np.float32, np.float64]))
@examples(8)
def test_trees(attributes: dict[str, Any], dtype: Any) -> None:
    assert_equal(regressor(attributes, columns=3, dtype=dtype), 3, dtype)


@pytest.mark.parametrize("case", [case for case, (_, outputs, gives) in CASES.items() if 8 not in gives.values()])
def test_operators(case: str) -> None:
    nodes, outputs, gives = CASES[case]
    used = {name for each in nodes for name in each.input}
    constants = {name: array for name, array in CONSTANTS.items() if name in used}
    assert_equal(model_of(nodes, outputs, constants=constants, gives=gives), 2)


def test_softmax_of_two_doubles() -> None:
    content = model_of([node("Softmax", ["x"], ["y"], axis=1)], ["y"], dtype=np.float64, gives={"y": 11})
    assert_equal(content, 2, np.float64)
