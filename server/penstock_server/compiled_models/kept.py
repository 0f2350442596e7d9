"""Keeps programs in the cache folder: the process that proves a version compiles its graph, and every worker only reads a file.

To compile is work for the interpreter, a second for a hundred thousand nodes, and a worker's requests would wait for it.
"""

import hashlib
import os
from contextlib import suppress
from dataclasses import astuple
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import structlog

from penstock_server import sealed
from penstock_server.compiled_models import tables
from penstock_server.compiled_models.program import Given, ModelProgram, Result, Vectors
from penstock_server.paths import cache_dir

log = structlog.get_logger(__name__)

MAX_BYTES: Final = 256 << 20
"""Of all files; those that were not asked for the longest go first."""
MAGIC: Final = b"penstock program 1\n"


class _File(msgspec.Struct, frozen=True, array_like=True):
    """A program without its forests, of which only a proof needs to know."""

    key: str
    block: bytes
    scratch_bytes: int
    given: Given
    results: tuple[Result, ...]
    work: int
    about: str


_files: Final = msgspec.msgpack.Decoder(_File)


def key_of(content: bytes, given: Given, vectors: Vectors) -> str:
    """The digest of all that a program depends on: the graph's file, what it is given, the processor, and this code."""
    told = repr((_own_digest(), astuple(given), astuple(vectors))).encode()
    return hashlib.sha256(told + hashlib.sha256(content).digest()).hexdigest()


def find(key: str) -> ModelProgram | None:
    """The program that was kept by this key; None if there is none, or its file is damaged. It has no forests."""
    path = _path(key)
    content = sealed.read(path, MAGIC)
    if content is None:
        return None
    with suppress(OSError):
        os.utime(path)
    try:
        found = _files.decode(content)
    except msgspec.DecodeError:
        return None
    if found.key != key:
        return None
    block = tables.aligned(len(found.block) // 8)
    block[:] = np.frombuffer(found.block, np.int64)
    return ModelProgram(block, found.scratch_bytes, found.given, found.results, (), found.work, found.about)


def keep(key: str, program: ModelProgram) -> None:
    """Keeps a program, where there is a folder to write to; without one each process compiles its own."""
    one = _File(
        key,
        program.block.tobytes(),
        program.scratch_bytes,
        program.given,
        program.results,
        program.work,
        program.about,
    )
    path = _path(key)
    try:
        sealed.write(path, MAGIC, msgspec.msgpack.encode(one))
        _sweep(path.parent)
    except OSError as error:
        log.debug("a compiled graph cannot be kept", folder=str(path.parent), reason=error.strerror)


def _path(key: str) -> Path:
    return cache_dir() / "programs" / f"{key[:32]}.bin"


def _sweep(folder: Path) -> None:
    left = MAX_BYTES
    states = [(path, path.stat()) for path in folder.glob("*.bin")]
    for path, state in sorted(states, key=lambda one: one[1].st_mtime, reverse=True):
        left -= state.st_size
        if left < 0:
            with suppress(FileNotFoundError):
                path.unlink()


@cache
def _own_digest() -> str:
    """Of the code that writes programs: another release's programs are not for these kernels."""
    here = Path(__file__).parent
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(here.glob("*.py")))).hexdigest()
