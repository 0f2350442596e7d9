"""The compiled kernels as functions: loads the machine code with llvmlite, has it built first where it is not there.

`ensure_compiled` is for the supervisor, before it starts workers; `library` is for whoever calls a kernel. numba is not
imported: what the code expects of its run time is never reached by kernels that neither allocate nor raise, and ends the
process with a message if it is.
"""

import ctypes
import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import llvmlite.binding as llvm
import msgspec

from penstock_server.errors import UnavailableError
from penstock_server.paths import cache_dir

MAGIC: Final = b"penstock kernels 1\n"
_DIGEST_BYTES: Final = hashlib.sha256().digest_size
_SOURCES: Final = ("kernels/*.py", "counting.py", "compiler/layout.py", "build.py")


class CompiledObject(msgspec.Struct, frozen=True):
    """One entry point in machine code.

    Attributes:
        name: as the kernels call it.
        symbol: as the object calls it.
        undefined: the symbols that the object expects from elsewhere.
        code: an object file of the host's own kind.
    """

    name: str
    symbol: str
    undefined: tuple[str, ...]
    code: bytes


class CompiledFile(msgspec.Struct, frozen=True):
    """All entry points, and the key of the machine and sources that they were compiled for."""

    key: str
    objects: tuple[CompiledObject, ...]


def current_key() -> str:
    """The digest of all that the machine code depends on: sources, compiler, interpreter and processor."""
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
    """The file's content, or None when there is none, it is torn, or it is another machine's or version's."""
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
    """Makes the folder where it is not there, and tries to write to it: cheaper to ask before than to compile in vain.

    Raises:
        OSError: it cannot be made or written to.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


def write(path: Path, content: CompiledFile) -> None:
    """Writes beside the path and renames, so that a reader sees a whole file or none, whoever else writes.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    payload = msgspec.msgpack.encode(content)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(MAGIC + hashlib.sha256(payload).digest() + payload)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


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
    """Runs the compiler in a process of its own; two at once write the same file, each whole."""
    try:
        check_writable(path.parent)
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
