"""A model's program with the kernels that run it: from the bytes of a matrix to arrays.

Several threads may use one at once. A call of a few microseconds keeps the GIL: to wait for it afterwards would cost more.
"""

import ctypes
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock_server.compiled_models import layout, tables
from penstock_server.compiled_models.kernel_set import KERNELS
from penstock_server.compiled_models.program import ModelProgram
from penstock_server.errors import UnavailableError
from penstock_server.kernels.compiled import library

_DTYPES: Final = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64))
_BRIEF_STEPS: Final = 1 << 15
"""Up to about so many steps, tens of microseconds of work, the kernels keep the GIL."""
_empty: Final[Any] = np.empty


def has_known_arrays() -> bool:
    """Whether numpy's array objects say where their elements are at the place where the kernels look for it.

    They are passed to the kernels as they are: asking numpy for an address costs as much as fifty trees.
    """
    probe = np.empty(1)
    word = ctypes.c_size_t.from_address(id(probe) + ctypes.sizeof(ctypes.c_size_t) * layout.ARRAY_DATA)
    return word.value == probe.ctypes.data


class ModelOutput(NamedTuple):
    """What the kernel writes for an output.

    Attributes:
        kind: SINGLE, DOUBLE or INTEGER.
        width: elements of a row.
        row_bytes: its size.
        texts: what its numbers stand for; None where they stand for themselves.
    """

    kind: int
    width: int
    row_bytes: int
    texts: tuple[str, ...] | None


class ModelCall(NamedTuple):
    """How kernels call a model's kernel themselves, for brief batches on the reactor's thread.

    Attributes:
        function, head: addresses.
        most_rows: of a brief batch.
        row_bytes: the size of a row of the matrix.
        outputs: in the graph's order.
    """

    function: int
    head: int
    most_rows: int
    row_bytes: int
    outputs: tuple[ModelOutput, ...]


class CompiledModel:
    """Runs a program.

    Attributes:
        program: what it runs.
        row_bytes: the size of a row of the matrix.

    Raises:
        UnavailableError: there are no kernels, or numpy's arrays are not as they know them.
    """

    def __init__(self, program: ModelProgram) -> None:
        if not has_known_arrays():
            raise UnavailableError("numpy's arrays are laid out otherwise than the kernels of models expect")
        self.program = program
        self.row_bytes = program.given.columns * _DTYPES[program.given.kind].itemsize
        self._head = self._new_head()
        self._at = self._head[0].ctypes.data
        self._brief_rows = _BRIEF_STEPS // max(1, program.work)
        kernels = library(KERNELS)
        self._brief, self._long = kernels.brief["run_model"], kernels.long["run_model"]
        shapes = [(0 if result.is_flat else result.width, _DTYPES[result.kind]) for result in program.results]
        self._first = shapes[0]
        self._second = shapes[1] if len(shapes) > 1 else None
        self._third = shapes[2] if len(shapes) > 2 else None
        self._texts = [None if result.texts is None else np.array(result.texts, object) for result in program.results]
        self._has_texts = any(texts is not None for texts in self._texts)

    def run(self, matrix: bytes | int, rows: int) -> list[NDArray[Any]]:
        """The outputs for a matrix of so many rows: its bytes, or where they are in memory."""
        width, dtype = self._first
        one = _empty((rows, width) if width else rows, dtype)
        arrays = [one]
        place = second = third = id(one)
        # Not a loop: it would take a third of the time.
        if self._second is not None:
            width, dtype = self._second
            two = _empty((rows, width) if width else rows, dtype)
            arrays.append(two)
            second = id(two)
            if self._third is not None:
                width, dtype = self._third
                three = _empty((rows, width) if width else rows, dtype)
                arrays.append(three)
                third = id(three)
        if rows <= self._brief_rows:
            # A brief call keeps the GIL, so no other call uses this memory at the same time; long calls have their own.
            self._brief(self._at, matrix, rows, place, second, third)
        else:
            head = self._new_head()
            self._long(head[0].ctypes.data, matrix, rows, place, second, third)
        return self._with_texts(arrays) if self._has_texts else arrays

    def kernel_call(self) -> ModelCall:
        """How other kernels call this model's, as long as the model is kept."""
        outputs = tuple(
            ModelOutput(result.kind, result.width, result.width * _DTYPES[result.kind].itemsize, result.texts)
            for result in self.program.results
        )
        return ModelCall(library(KERNELS).addresses["run_model"], self._at, self._brief_rows, self.row_bytes, outputs)

    def _with_texts(self, arrays: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """Texts in place of their numbers."""
        return [array if texts is None else texts[array] for array, texts in zip(arrays, self._texts, strict=True)]

    def _new_head(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What a call is told: where the program is, and memory of its own, which is kept with it."""
        scratch = tables.aligned(self.program.scratch_bytes // 8)
        head = np.zeros(layout.HEAD_WORDS, np.int64)
        head[layout.PROGRAM], head[layout.SCRATCH] = self.program.block.ctypes.data, scratch.ctypes.data
        return head, scratch
