"""The file that holds the compiled kernels: what is in it, what it is named, and when it may be used.

The name carries the digest of all that the machine code depends on, so that a change of any of it is another file; the
digest inside tells a whole file from a torn one. `build` writes it, `compiled` reads it. The folder is trusted as
Python's own `__pycache__` is: who may write there may run code here.
"""

import hashlib
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

import llvmlite.binding as llvm
import msgspec

from penstock_server.paths import cache_dir

MAGIC: Final = b"penstock kernels 1\n"
_DIGEST_BYTES: Final = hashlib.sha256().digest_size
_SOURCES: Final = ("kernels/*.py", "layout_counts.py", "compiler/layout.py", "build.py")


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
