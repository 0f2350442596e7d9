"""The compiled kernels as functions: loads the machine code with llvmlite, has it built first where it is not there.

`ensure_compiled` is for the supervisor, before it starts workers; `library` is for whoever calls a kernel. numba is not
imported: what the code expects of its run time is never reached by kernels that neither allocate nor raise, and ends the
process with a message if it is.
"""

import ctypes
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import llvmlite.binding as llvm

from penstock_server.errors import UnavailableError
from penstock_server.features import compiled_file
from penstock_server.features.compiled_file import CompiledFile, CompiledObject

BUILD_TIMEOUT_S: Final = 300.0

_RUN = (
    ctypes.c_void_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    *[ctypes.c_int64] * 2,
    *[ctypes.c_void_p] * 4,
    ctypes.c_int64,
)
_ARGUMENTS: Final[dict[str, tuple[Any, ...]]] = {
    "run": _RUN,
    "count_elements": (ctypes.c_char_p, ctypes.c_int64),
}

Function = Callable[..., int]


@dataclass(frozen=True, slots=True)
class Library:
    """The kernels by name, twice: `brief` keeps the GIL during the call, `long` lets other threads run.

    To give the GIL back costs a wait for it afterwards, so that a call of some microseconds is better off keeping it.
    """

    brief: dict[str, Function]
    long: dict[str, Function]
    engine: Any


@cache
def library() -> Library:
    """The kernels of this machine, loaded once a process.

    Raises:
        UnavailableError: they are not there and cannot be built; says why.
    """
    return load(_ensured()[1])


def ensure_compiled() -> Path:
    """The file of compiled kernels, built now where there is none that fits; takes seconds then.

    Raises:
        UnavailableError: it cannot be built; says why.
    """
    return _ensured()[0]


def load(content: CompiledFile) -> Library:
    """The entry points that the file holds, ready to be called."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    for entry in content.objects:
        _define(entry)
        engine.add_object_file(llvm.ObjectFileRef.from_data(entry.code))
    engine.finalize_object()
    addresses = {entry.name: engine.get_function_address(entry.symbol) for entry in content.objects}
    return Library(
        {name: ctypes.PYFUNCTYPE(ctypes.c_int64, *_ARGUMENTS[name])(at) for name, at in addresses.items()},
        {name: ctypes.CFUNCTYPE(ctypes.c_int64, *_ARGUMENTS[name])(at) for name, at in addresses.items()},
        engine,
    )


def _ensured() -> tuple[Path, CompiledFile]:
    key = compiled_file.current_key()
    path = compiled_file.default_path(key)
    found = compiled_file.read(path, key)
    if found is None:
        _build(path)
        found = compiled_file.read(path, key)
    if found is None:
        raise UnavailableError(
            f"the feature kernels were compiled, but {path} does not hold them; is something else writing it?"
        )
    return path, found


def _build(path: Path) -> None:
    """Runs the compiler in a process of its own; two at once write the same file, each whole."""
    try:
        compiled_file.check_writable(path.parent)
    except OSError as error:
        raise UnavailableError(
            f"the feature kernels cannot be kept in {path.parent}: {error}; set PENSTOCK_CACHE_DIR to a folder to write to"
        ) from error
    # Settings of numba that somebody made for other work would switch the compiler off or change its code.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "NUMBA_DISABLE_INTEL_SVML": "1"}
    command = [sys.executable, "-P", "-m", "penstock_server.features.build", str(path)]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"the feature kernels cannot be compiled: {error}") from error
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if "Error" in line]
        reason = said[-1].strip() if said else f"exit code {done.returncode}"
        raise UnavailableError(f"the feature kernels cannot be compiled: {reason}")


def _abort() -> None:
    os.write(2, b"penstock: a feature kernel called numba's run time, which is not there\n")
    os.abort()


_NEVER_CALLED: Final = ctypes.CFUNCTYPE(None)(_abort)


def _define(entry: CompiledObject) -> None:
    """Gives an address to each symbol that the object expects and the process has not."""
    for symbol in entry.undefined:
        if not llvm.address_of_symbol(symbol):
            address = ctypes.cast(getattr(ctypes.pythonapi, symbol, _NEVER_CALLED), ctypes.c_void_p).value
            llvm.add_symbol(symbol, address)
