"""Takes from a process what a pipeline does not need: memory, the network, places to write, and rights over others.

Each measure is the kernel's own, needs no privileges, and is left out where the kernel does not have it: what is in force is
returned. It holds faults, and code that is careless. It is no wall against an attacker: the process can still read what its
user can read, and use the processor.

Sources: `prctl(2)`, `unshare(2)`, `landlock(7)`, `capset(2)`, `setrlimit(2)`.
"""

import ctypes
import os
import resource
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

DESCRIPTORS: Final = 256
FILE_BYTES: Final = 1 << 28
"""The largest file that it may write."""
NICENESS: Final = 5
"""A worker answers other versions too, and gets the processor first."""
_MEBIBYTE: Final = 1 << 20

_NO_NEW_PRIVILEGES: Final = 38
_NEW_USERS: Final = 0x10000000
_NEW_NETWORK: Final = 0x40000000

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same number on every architecture
_RULESET_VERSION: Final = 1
_BENEATH_PATH: Final = 1
_WRITE_FILE: Final = 1 << 1
_CHANGE_FOLDERS: Final = sum(1 << at for at in range(4, 13))
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_TCP: Final = 0b11
_SCOPES: Final = 0b11
"""Signals, and sockets with abstract names: both only among its own."""


def leave_network() -> bool:
    """Moves this process, which must have one thread, into a network of its own with nobody in it; whether that worked."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not sys.platform.startswith("linux"):
        return False
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEW_NETWORK) == 0:
        return True  # a privileged user needs no users of its own
    if libc.unshare(_NEW_USERS | _NEW_NETWORK) != 0:
        return False
    with suppress(OSError):
        # The user keeps its name; without the maps libraries see "nobody".
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    return True


def confine(folder: Path, memory_mib: int) -> tuple[str, ...]:
    """Limits this process, its future threads and its children.

    Args:
        folder: the only one that it may write to.
        memory_mib: what it may map on top of what it has mapped.

    Returns:
        What is in force, in words, besides the limits of memory and descriptors.
    """
    for kind, most in (
        (resource.RLIMIT_AS, _mapped_bytes() + memory_mib * _MEBIBYTE),
        (resource.RLIMIT_NOFILE, DESCRIPTORS),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with suppress(OSError, ValueError):  # macOS has no limit of mapped memory
            resource.setrlimit(kind, (allowed, allowed))
    with suppress(OSError):
        os.nice(NICENESS)
    with suppress(OSError):
        # When the whole machine is short of memory, this process goes before one that serves others.
        Path("/proc/self/oom_score_adj").write_text("1000")
    # Where the kernel forbids no writing, what a pipeline imports would leave its bytecode beside the libraries.
    sys.dont_write_bytecode = True
    return tuple(_taken_away(folder)) if sys.platform.startswith("linux") else ()


def _taken_away(folder: Path) -> Iterator[str]:
    libc = ctypes.CDLL(None, use_errno=True)
    # Without it neither landlock nor dropped rights would hold: a program with the setuid bit gets them back.
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return
    yield "no new privileges"
    yield from _landlocked(libc, folder)
    header = struct.pack("Ii", 0x20080522, 0)
    if os.geteuid() == 0 and libc.capset(header, bytes(24)) == 0:
        yield "no capabilities"


def _landlocked(libc: ctypes.CDLL, folder: Path) -> Iterator[str]:
    """Forbids writing outside a folder, TCP, and signals to others, as far as this kernel's landlock goes."""
    version = libc.syscall(_CREATE_RULESET, None, 0, _RULESET_VERSION)
    if version < 1:
        return
    writing = _WRITE_FILE | _CHANGE_FOLDERS | (_REFER if version >= 2 else 0) | (_TRUNCATE if version >= 3 else 0)
    parts = [writing, *([_TCP] if version >= 4 else []), *([_SCOPES] if version >= 6 else [])]
    attributes = struct.pack(f"{len(parts)}Q", *parts)
    rules = libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if rules < 0:
        return
    try:
        for path, allowed in ((folder, writing), (Path(os.devnull), _WRITE_FILE)):
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            try:
                if libc.syscall(_ADD_RULE, rules, _BENEATH_PATH, struct.pack("=Qi", allowed, place), 0) != 0:
                    return
            finally:
                os.close(place)
        if libc.syscall(_RESTRICT_SELF, rules, 0) == 0:
            yield from ("writes to its own folder alone", "no TCP", "no signals to others")[: len(parts)]
    finally:
        os.close(rules)


def _mapped_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 4096 * _MEBIBYTE
