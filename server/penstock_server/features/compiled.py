"""Loads the compiled kernels as functions with llvmlite; has `build` compile them first if necessary.

The supervisor calls `ensure_compiled` before it starts workers; `library` gives the functions. numba is not imported. The
machine code refers to numba's run time, but kernels that neither allocate nor raise never call it; if one did, the process
would end with a message.
"""

import ctypes
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import llvmlite.binding as llvm
import msgspec

from penstock_server import atomic, leases
from penstock_server.errors import UnavailableError
from penstock_server.leases import Lease
from penstock_server.paths import cache_dir

BUILD_TIMEOUT_S: Final = 300.0
MAGIC: Final = b"penstock kernels 1\n"
_DIGEST_BYTES: Final = hashlib.sha256().digest_size
_SOURCES: Final = ("kernels/*.py", "counting.py", "compiler/layout.py", "build.py")


class CompiledObject(msgspec.Struct, frozen=True):
    """One entry point in machine code.

    Attributes:
        name: as the kernels call it.
        symbol: as the object calls it.
        undefined: the symbols that the object imports.
        code: an object file in the host's format.
    """

    name: str
    symbol: str
    undefined: tuple[str, ...]
    code: bytes


class CompiledFile(msgspec.Struct, frozen=True):
    """All entry points, and the key of the sources and the machine that they were compiled for."""

    key: str
    objects: tuple[CompiledObject, ...]


def current_key() -> str:
    """The digest of everything that the machine code depends on: sources, compiler, interpreter and processor."""
    folder = Path(__file__).parent
    sources = sorted(path for pattern in _SOURCES for path in folder.glob(pattern))
    parts = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sources]
    parts += [version("numba"), version("llvmlite"), version("numpy"), sys.implementation.cache_tag or "", sys.platform]
    parts += [llvm.get_default_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def default_path(key: str) -> Path:
    """Where the file of this key is kept."""
    return cache_dir() / f"kernels-{key[:24]}.bin"


def read(path: Path, key: str) -> CompiledFile | None:
    """The file's content; None if there is no file, it is damaged, or it has another key."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    payload = data[len(MAGIC) + _DIGEST_BYTES :]
    if data[: -len(payload) or None] != MAGIC + hashlib.sha256(payload).digest():
        return None
    try:
        found = msgspec.msgpack.decode(payload, type=CompiledFile)
    except msgspec.DecodeError:
        return None
    return found if found.key == key else None


def check_writable(folder: Path) -> None:
    """Creates the folder if necessary and writes to it, before a compilation of seconds whose result could not be kept.

    Raises:
        OSError: it cannot be created or written to.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def write(path: Path, content: CompiledFile) -> None:
    """Writes the file in one step: a reader sees a whole file or none, even when several processes write it.

    Raises:
        OSError: the folder cannot be created or written to.
    """
    payload = msgspec.msgpack.encode(content)
    # Other users must not be able to put machine code here.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic.write(path, MAGIC + hashlib.sha256(payload).digest() + payload)


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

EntryPoint = Callable[..., int]


@dataclass(frozen=True, slots=True)
class Library:
    """The kernels by name, twice: `brief` keeps the GIL during the call, `long` lets other threads run.

    A call that releases the GIL waits for it afterwards, so a call of a few microseconds is faster if it keeps it.
    """

    brief: dict[str, EntryPoint]
    long: dict[str, EntryPoint]
    engine: Any
    lease: Lease | None = None
    """Keeps the file, which another process of this machine may need next, from being swept with the cache."""


@cache
def library() -> Library:
    """The kernels of this machine, loaded once per process.

    Raises:
        UnavailableError: there is no file for this machine and it cannot be built; says why.
    """
    path, content = _ensured()
    return replace(load(content), lease=leases.take(path))


def ensure_compiled() -> Path:
    """The file of compiled kernels; built first, which takes seconds, if there is none for this machine.

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
    key = current_key()
    path = default_path(key)
    found = read(path, key)
    if found is None:
        _build(path)
        found = read(path, key)
    if found is None:
        raise UnavailableError(
            f"the feature kernels were compiled, but {path} does not hold them; is something else writing it?"
        )
    return path, found


def _build(path: Path) -> None:
    """Runs the compiler in a process of its own. If two run at once, each writes the whole file."""
    try:
        check_writable(path.parent)
    except OSError as error:
        raise UnavailableError(
            f"the feature kernels cannot be kept in {path.parent}: {error}; set PENSTOCK_CACHE_DIR to a folder to write to"
        ) from error
    # The user's settings of numba could switch the compiler off or change its code.
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
        lines = [line for line in done.stderr.splitlines() if "Error" in line]
        reason = lines[-1].strip() if lines else f"exit code {done.returncode}"
        raise UnavailableError(f"the feature kernels cannot be compiled: {reason}")


def _abort() -> None:
    os.write(2, b"penstock: a feature kernel called numba's run time, which is not there\n")
    os.abort()


_NEVER_CALLED: Final = ctypes.CFUNCTYPE(None)(_abort)


def _define(entry: CompiledObject) -> None:
    """Gives an address to each symbol that the object expects and the process does not have."""
    for symbol in entry.undefined:
        if not llvm.address_of_symbol(symbol):
            address = ctypes.cast(getattr(ctypes.pythonapi, symbol, _NEVER_CALLED), ctypes.c_void_p).value
            llvm.add_symbol(symbol, address)
