"""A set of kernels: what is compiled together into one file, and what `compiled` and its messages need to know of it.

A room that has kernels describes them in such a record, as `KERNELS` of a module that imports none of them.
"""

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple


class Prototype(NamedTuple):
    """The C types of a function."""

    result: Any
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True, eq=False)
class KernelSet:
    """What is compiled together into one file.

    Attributes:
        name: tells its files from those of other sets.
        defined_in: the module that has this record as `KERNELS`, by which the process of the compiler finds it.
        title: what messages call it, such as "feature kernels".
        users: who cannot do without, for messages, such as "versions with features".
        modules: have `ENTRY_POINTS`, compiled functions by name; imported only to compile, since they import numba.
        sources: patterns of the files whose code is compiled, from the server's package on. Those of this room always count.
        prototypes: of the entry points that Python calls. One that only C calls, by its address, needs none.
        functions: about how many functions numba compiles, its own included: what progress is measured by.
        libraries: opens the C libraries that have the functions which the kernels call, besides the C library, its mathematics
            and Python. Raises UnavailableError if one is not there. Compiling needs none of them.
    """

    name: str
    defined_in: str
    title: str
    users: str
    modules: tuple[str, ...]
    sources: tuple[str, ...]
    prototypes: Mapping[str, Prototype]
    functions: int
    libraries: Callable[[], Sequence[ctypes.CDLL]] = tuple
