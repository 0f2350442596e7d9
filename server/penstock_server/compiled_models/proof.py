"""Proves that a program answers as onnxruntime does, to the last bit: on golden rows, random ones, and those at every split.

For each split there are rows that reach it, as far as rows do, with its bound and the two numbers beside that. All rows run
together, and some of them in batches of other sizes, since kernels and onnxruntime compute few rows otherwise than many.
NaN is equal to NaN. What is not proven in time is not proven.
"""

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.compiled_models.graph import NotCompiledError
from penstock_server.compiled_models.program import ModelProgram
from penstock_server.compiled_models.trees import ForestTree

ROWS: Final = 512
"""Rows that run together."""
SIZES: Final = (1, 2, 3, 8, 16, 17, 33)
"""Other batches: one row, few, and a block of lanes with one row less and more."""
BUDGET_S: Final = 4.0
MAX_NUMBERS: Final = 1 << 23
"""Of the rows that reach the nodes of one tree."""
_SCALES: Final = (1.0, 1e3, 1e-3, 30.0)
_SPECIAL_SHARE: Final = 0.2

Run = Callable[[NDArray[Any]], Sequence[NDArray[Any]]]
"""Answers the rows of a matrix."""


def difference(program: ModelProgram, ours: Run, theirs: Run, golden: NDArray[Any] | None) -> str:
    """Why the program is not proven, in one sentence; "" where it is."""
    deadline_s = perf_counter() + BUDGET_S
    for name, matrix, sizes in _tries(program, golden):
        if perf_counter() > deadline_s:
            return f"it could not be proven equal to onnxruntime within {BUDGET_S:g} s"
        if found := _compared(matrix, ours, theirs):
            return f"{found} on {name}"
        for size in sizes:
            for first in range(0, min(len(matrix), 4 * size), size):
                rows = matrix[first : first + size]
                if found := _compared(rows, ours, theirs):
                    return f"{found} on {name}, {len(rows)} at a time"
    return ""


def _tries(program: ModelProgram, golden: NDArray[Any] | None) -> Iterator[tuple[str, NDArray[Any], Sequence[int]]]:
    """Rows with what they are, and in which batches they run besides."""
    if golden is not None and len(golden):
        yield "golden rows", np.ascontiguousarray(golden[:ROWS]), SIZES
    dtype = np.dtype((np.float32, np.float64)[program.given.kind])
    random = np.random.default_rng(0)
    for scale in _SCALES:
        plain = (random.standard_normal((ROWS, program.given.columns)) * scale).astype(dtype)
        yield "random rows", plain, SIZES
        yield "rows with NaN, infinities and zeros", _with_specials(plain, random), SIZES
    for block in _at_splits(program, random, dtype):
        yield "rows at the bounds of its splits", block, ()


def _with_specials(plain: NDArray[Any], random: np.random.Generator) -> NDArray[Any]:
    limits = np.finfo(plain.dtype)
    specials = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, limits.smallest_subnormal, limits.max, limits.min]
    chosen = random.choice(np.array(specials, plain.dtype), plain.shape)
    return np.where(random.random(plain.shape) < _SPECIAL_SHARE, chosen, plain)


def _at_splits(program: ModelProgram, random: np.random.Generator, dtype: np.dtype[Any]) -> Iterator[NDArray[Any]]:
    """Blocks of rows for all splits: three for each."""
    for forest, columns in program.forests:
        base = random.standard_normal(program.given.columns).astype(dtype)
        used = forest.features
        seen = np.array(columns)[used] if used.size else used
        for tree in forest.trees:
            if len(tree.feature) * len(used) > MAX_NUMBERS:
                raise NotCompiledError("its trees are too large to be proven")
            place = np.searchsorted(used, tree.feature)
            reaching = _reaching(tree, place, base[seen])
            for first in range(0, len(place), ROWS // 3):
                some = slice(first, first + ROWS // 3)
                bounds = tree.bound[some]
                rows = np.tile(base, (3 * len(bounds), 1))
                rows[:, seen] = np.repeat(reaching[some], 3, axis=0)
                beside = np.stack([bounds, _above(bounds), -_above(-bounds)], axis=1)
                rows[np.arange(len(rows)), np.repeat(seen[place[some]], 3)] = beside.ravel()
                yield rows


def _reaching(tree: ForestTree, place: NDArray[np.int64], base: NDArray[Any]) -> NDArray[Any]:
    """For each node a row that reaches it, unless its path contradicts itself; a node's parent comes before it."""
    rows = np.empty((len(place), len(base)), base.dtype)
    rows[:1] = base
    above = _above(tree.bound)
    sides = ((tree.left.tolist(), True), (tree.right.tolist(), False))
    for node, column in enumerate(place.tolist()):
        for children, goes_left in sides:
            if (child := children[node]) >= 0:
                rows[child] = rows[node]
                if (rows[node, column] <= tree.bound[node]) != goes_left:
                    rows[child, column] = tree.bound[node] if goes_left else above[node]
    return rows


def _above(bound: Any) -> Any:
    """The next number."""
    with np.errstate(all="ignore"):
        return np.nextafter(bound, np.asarray(bound).dtype.type(np.inf))


def _compared(matrix: NDArray[Any], ours: Run, theirs: Run) -> str:
    try:
        expected = theirs(matrix)
    except Exception:  # noqa: BLE001 - whatever it raises
        return "onnxruntime fails"
    found = ours(matrix)
    if len(found) != len(expected):
        return "the kernels give other outputs"
    return "" if all(map(is_same, expected, found)) else "the kernels answer otherwise than onnxruntime"


def is_same(expected: NDArray[Any], found: NDArray[Any]) -> bool:
    """Whether two arrays are the same to the last bit; NaN is like NaN."""
    if expected.shape != found.shape or (expected.dtype.kind == "O") != (found.dtype.kind == "O"):
        return False
    if expected.dtype.kind == "O":
        return bool((expected == found).all())
    if expected.dtype != found.dtype:
        return False
    bits = np.dtype(f"u{expected.dtype.itemsize}")
    same = np.ascontiguousarray(expected).view(bits) == np.ascontiguousarray(found).view(bits)
    if expected.dtype.kind == "f":
        same |= np.isnan(expected) & np.isnan(found)
    return bool(same.all())
