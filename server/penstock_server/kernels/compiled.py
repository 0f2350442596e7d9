"""Finds the compiled kernels of a set and loads them as functions; has `build` compile them if there are none.

A set has two files. The shipped one is part of a release and runs on every machine of the architecture's baseline
(`processor`). The machine's own is compiled by numba into the cache folder, and preferred. Both hold blocks of memory with
what is to be filled in (`object_file`), so loading takes neither numba nor LLVM.

The machine code refers to numba's run time, but kernels that neither allocate nor raise never call it; if one did, the process
would end with a message.
"""

import ctypes
import fcntl
import hashlib
import mmap
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from penstock_server import leases, sealed
from penstock_server.errors import UnavailableError
from penstock_server.kernels.kernel_set import KernelSet
from penstock_server.kernels.processor import ProcessorBaseline, this_processor
from penstock_server.leases import Lease
from penstock_server.paths import cache_dir

BUILD_TIMEOUT_S: Final = 300.0
MAGIC: Final = b"penstock kernels 2\n"
SHIPPED: Final = Path(__file__).parent / "shipped"
"""The folder of the files that a release has; empty in a checkout."""
INSTALL: Final = "pip install 'penstock[compile]'"
_PACKAGE: Final = Path(__file__).parent.parent
_SOURCES: Final = ("kernels/base.py", "kernels/build.py", "kernels/object_file.py")
"""Part of every set."""


RelocationKind = Literal["word", "move0", "move16", "move32", "move48"]
"""A whole word, or the 16 bits from this one on into the operand of a move instruction."""


class Relocation(msgspec.Struct, frozen=True, array_like=True):
    """An address that is filled in when the block is loaded.

    Attributes:
        kind: how.
        at: where in the block.
        symbol: a function or variable of the process; "" is the block itself.
        addend: added to its address.
    """

    kind: RelocationKind
    at: int
    symbol: str
    addend: int


class CompiledObject(msgspec.Struct, frozen=True):
    """One entry point in machine code.

    Attributes:
        name: as the kernels call it.
        entry: where in the block it begins.
        block: machine code and constants.
        relocations: what is filled in.
    """

    name: str
    entry: int
    block: bytes
    relocations: tuple[Relocation, ...]


class CompiledFile(msgspec.Struct, frozen=True):
    """All entry points, and the key of what they were compiled from and for."""

    key: str
    objects: tuple[CompiledObject, ...]


@cache
def own_key(kernels: KernelSet) -> str:
    """The digest of everything that this machine's own code depends on: sources, compiler and processor."""
    return _key(
        kernels, _installed("numba"), _installed("llvmlite"), this_processor().architecture, this_processor().identity
    )


@cache
def shipped_key(kernels: KernelSet, architecture: str, baseline: ProcessorBaseline) -> str:
    """The digest of what a shipped file depends on. Its compiler is not part of it, since it need not be installed."""
    return _key(kernels, architecture, baseline.name)


def own_path(kernels: KernelSet) -> Path:
    """Where this machine's own file is kept."""
    return cache_dir() / f"kernels-{kernels.name}-{own_key(kernels)[:24]}.bin"


def shipped_path(kernels: KernelSet, architecture: str) -> Path:
    """Where an architecture's shipped file is in a release."""
    return SHIPPED / f"kernels-{kernels.name}-{architecture}.bin"


_files: Final = msgspec.msgpack.Decoder(CompiledFile)


def read(path: Path, key: str) -> CompiledFile | None:
    """The file's content; None if there is no file, it is damaged, or it has another key."""
    content = sealed.read(path, MAGIC)
    if content is None:
        return None
    try:
        found = _files.decode(content)
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
    sealed.write(path, MAGIC, msgspec.msgpack.encode(content))


EntryPoint = Callable[..., int]


@dataclass(frozen=True, slots=True)
class Library:
    """The kernels by name: those that Python calls twice, and the addresses of all.

    A call that releases the GIL waits for it afterwards, so a call of a few microseconds is faster if it keeps it.

    Attributes:
        brief: keep the GIL during the call.
        long: let other threads run.
        addresses: where the functions are, for C libraries to call back while this object lives.
        memory: holds the code.
        key: the digest of what they were compiled from and for.
        lease: keeps the file, which another process of this machine may need next, from being swept with the cache.
    """

    brief: dict[str, EntryPoint]
    long: dict[str, EntryPoint]
    addresses: dict[str, int]
    memory: tuple[mmap.mmap, ...]
    key: str = ""
    lease: Lease | None = None


def find_own(kernels: KernelSet) -> tuple[Path, CompiledFile] | None:
    """The file compiled for this machine, if there is one."""
    path = own_path(kernels)
    found = read(path, own_key(kernels))
    return None if found is None else (path, found)


def find_shipped(kernels: KernelSet) -> tuple[Path, CompiledFile] | None:
    """The file of the release, if there is one of these sources that this machine can run."""
    processor = this_processor()
    if processor.baseline is None:
        return None
    path = shipped_path(kernels, processor.architecture)
    found = read(path, shipped_key(kernels, processor.architecture, processor.baseline))
    return None if found is None else (path, found)


def find(kernels: KernelSet) -> tuple[Path, CompiledFile] | None:
    """The kernels that this machine can use now, the machine's own before the shipped ones."""
    return find_own(kernels) or find_shipped(kernels)


@cache
def library(kernels: KernelSet) -> Library:
    """The set's kernels, loaded once per process; compiled first, which takes up to a minute, if there are none.

    Raises:
        UnavailableError: there are none for this machine and they cannot be compiled, or it lacks a function that they need;
            says why.
    """
    path, content = _ensured(kernels)
    return replace(load(kernels, content), lease=leases.take(path))


def available(kernels: KernelSet) -> Library | None:
    """The set's kernels as `library` has them, or None if they would have to be compiled first."""
    found = find(kernels)
    return None if found is None else library(kernels)


def ensure_compiled(kernels: KernelSet) -> Path:
    """The set's file that this machine uses; compiled first, which takes up to a minute, if there is none.

    Raises:
        UnavailableError: it cannot be compiled; says why.
    """
    return _ensured(kernels)[0]


def load(kernels: KernelSet, content: CompiledFile) -> Library:
    """The entry points that the file holds, ready to be called.

    Raises:
        UnavailableError: the system lacks a function that they need, or forbids to run them.
    """
    memory, addresses = [], {}
    outside = _outside(kernels, {one.symbol for entry in content.objects for one in entry.relocations} - {""})
    for entry in content.objects:
        block = _mapped(entry, outside)
        memory.append(block)
        addresses[entry.name] = ctypes.addressof(ctypes.c_char.from_buffer(block)) + entry.entry
        _protect(kernels, block)
    called = [(name, *kernels.prototypes[name], at) for name, at in addresses.items() if name in kernels.prototypes]
    return Library(
        {name: ctypes.PYFUNCTYPE(result, *arguments)(at) for name, result, arguments, at in called},
        {name: ctypes.CFUNCTYPE(result, *arguments)(at) for name, result, arguments, at in called},
        addresses,
        tuple(memory),
        content.key,
    )


def build_command(kernels: KernelSet, path: Path, *options: str) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment of a process that compiles the set into a file."""
    # The user's settings of numba could switch the compiler off or change its code.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
    environment |= {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    options = (f"--set={kernels.defined_in}", f"--parent={os.getpid()}", *options)
    return [sys.executable, "-P", "-m", "penstock_server.kernels.build", *options, str(path)], environment


def build_failure(kernels: KernelSet, code: int | None, stderr: str) -> str:
    """Why a compiler that ended did not succeed, in one sentence."""
    lines = [line for line in stderr.splitlines() if "Error" in line]
    reason = lines[-1].strip()[:300] if lines else f"exit code {code}"
    return f"the {kernels.title} cannot be compiled: {reason}"


def check_can_build(kernels: KernelSet, path: Path) -> None:
    """Checks that numba is installed and that its result can be kept.

    Raises:
        UnavailableError: one of them is not so.
    """
    if find_spec("numba") is None:
        raise UnavailableError(
            f"there are no {kernels.title} for this machine, and numba, which compiles them, is not installed; "
            f"run: {INSTALL}"
        )
    try:
        check_writable(path.parent)
    except OSError as error:
        raise UnavailableError(
            f"the {kernels.title} cannot be kept in {path.parent}: {error}; set PENSTOCK_CACHE_DIR to a folder to write to"
        ) from error


def _ensured(kernels: KernelSet) -> tuple[Path, CompiledFile]:
    found = find(kernels)
    if found is None:
        path = own_path(kernels)
        check_can_build(kernels, path)
        with _alone(path):
            if find_own(kernels) is None:  # nobody compiled them meanwhile
                _build(kernels, path)
        content = read(path, own_key(kernels))
        if content is None:
            raise UnavailableError(
                f"the {kernels.title} were compiled, but {path} does not hold them; is something else writing it?"
            )
        found = path, content
    return found


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Waits until nobody else compiles into this file, where the file system has locks."""
    with path.with_name(f".{path.stem}.lock").open("w") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(kernels: KernelSet, path: Path) -> None:
    """Runs the compiler in a process of its own."""
    command, environment = build_command(kernels, path)
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"the {kernels.title} cannot be compiled: {error}") from error
    if done.returncode != 0:
        raise UnavailableError(build_failure(kernels, done.returncode, done.stderr))


def _key(kernels: KernelSet, *parts: str) -> str:
    sources = sorted(path for pattern in (*_SOURCES, *kernels.sources) for path in _PACKAGE.glob(pattern))
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sources]
    return hashlib.sha256("\n".join([kernels.name, *digests, sys.platform, *parts]).encode()).hexdigest()


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _mapped(entry: CompiledObject, outside: Mapping[str, int]) -> mmap.mmap:
    """The block in memory of its own, with every address filled in; it can be written to, but not run yet."""
    block = mmap.mmap(-1, len(entry.block))
    block.write(entry.block)
    base = ctypes.addressof(ctypes.c_char.from_buffer(block))
    for one in entry.relocations:
        value = (outside[one.symbol] if one.symbol else base) + one.addend
        if one.kind == "word":
            struct.pack_into("<Q", block, one.at, value)
        else:
            (instruction,) = struct.unpack_from("<I", block, one.at)
            operand = value >> int(one.kind.removeprefix("move")) & 0xFFFF
            struct.pack_into("<I", block, one.at, instruction | operand << 5)
    return block


def _protect(kernels: KernelSet, block: mmap.mmap) -> None:
    """Makes the block runnable, and read-only: no memory is both writable and runnable."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    at = ctypes.addressof(ctypes.c_char.from_buffer(block))
    if this_processor().architecture != "x86_64":  # elsewhere the cache of instructions does not see writes
        clear: Any = getattr(ctypes.CDLL("libgcc_s.so.1"), "__clear_cache")
        clear(ctypes.c_void_p(at), ctypes.c_void_p(at + len(block)))
    if libc.mprotect(at, len(block), mmap.PROT_READ | mmap.PROT_EXEC) != 0:
        raise UnavailableError(
            f"the {kernels.title} cannot be made runnable: {os.strerror(ctypes.get_errno())}; does the system forbid it?"
        )


def _outside(kernels: KernelSet, symbols: Iterable[str]) -> dict[str, int]:
    """The address of each symbol: of the set's libraries, the C library, Python, or of `_abort` for numba's run time."""
    libraries: list[Any] = [*kernels.libraries(), ctypes.CDLL(None)]
    with suppress(OSError):  # a C library that has its mathematics in it
        libraries.append(ctypes.CDLL("libm.so.6"))
    libraries.append(ctypes.pythonapi)

    def address(symbol: str) -> int:
        for library in libraries:
            if (found := getattr(library, symbol, None)) is not None:
                return ctypes.cast(found, ctypes.c_void_p).value or 0
        if not symbol.startswith(("numba_", "NRT_", "Py")):
            raise UnavailableError(f"the {kernels.title} need the function {symbol}, which this system does not have")
        return ctypes.cast(_NEVER_CALLED, ctypes.c_void_p).value or 0

    return {symbol: address(symbol) for symbol in symbols}


def _abort() -> None:
    os.write(2, b"penstock: a compiled kernel called numba's run time, which is not there\n")
    os.abort()


_NEVER_CALLED: Final = ctypes.CFUNCTYPE(None)(_abort)
