"""Reserves the server's two ports before anything else starts.

All workers share the gRPC port, and it stays the server's while workers come and go. Each worker listens on it with
SO_REUSEPORT. The supervisor's socket is bound but does not listen: it gets no connections, and holds the port while no worker
listens. A socket file cannot be shared: one worker serves it.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from penstock_server.errors import UnavailableError

_UNIX: Final = "unix:"


@contextmanager
def listening_address(host: str, port: int) -> Iterator[str]:
    """Where workers listen, `host:port` or `unix:/path`, kept for this server until the end of the block.

    Raises:
        UnavailableError: another program listens there, or nobody can.
    """
    if host.startswith(_UNIX):
        path = Path(host.removeprefix(_UNIX)).absolute()
        _claim(path)
        try:
            yield f"{_UNIX}{path}"
        finally:
            with suppress(OSError):
                path.unlink()
    else:
        with reserve(host, port) as reserved:
            yield address_of(host, reserved.getsockname()[1])


def _claim(path: Path) -> None:
    """Makes sure that a socket file can be created: a file that an ended server left there is removed."""
    try:
        if path.exists():
            if not stat.S_ISSOCK(path.stat().st_mode):
                raise _cannot_use(path, "it is another kind of file")
            with socket.socket(socket.AF_UNIX) as probe, suppress(ConnectionRefusedError):
                probe.connect(str(path))
                raise _cannot_use(path, "another program listens on it")
            path.unlink()
        elif not path.parent.is_dir():
            raise _cannot_use(path, "its folder does not exist")
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise _cannot_use(path, "its folder cannot be written to")
    except OSError as error:
        raise _cannot_use(path, str(error.strerror or error)) from error


def _cannot_use(path: Path, why: str) -> UnavailableError:
    return UnavailableError(f"cannot listen on the socket file {path} for gRPC: {why}; choose another with --host")


def reserve(host: str, port: int) -> socket.socket:
    """Binds the port until the socket is closed; port 0 takes a free one.

    Raises:
        UnavailableError: another program listens there, or the address is not this machine's.
    """
    try:
        family, address = _resolved(host, port)
        if port:
            # With SO_REUSEPORT two servers could share a port by mistake; a socket without it is refused.
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                probe.listen()
        reserved = socket.socket(family, socket.SOCK_STREAM)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(address)
    except OSError as error:
        raise _refusal(host, port, "gRPC", "--port", error) from error
    return reserved


def reserve_http(host: str, port: int) -> socket.socket:
    """Binds the HTTP port; the socket does not listen yet. Port 0 takes a free one.

    Raises:
        UnavailableError: as for `reserve`.
    """
    try:
        family, address = _resolved(host, port)
        bound = socket.socket(family, socket.SOCK_STREAM)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        raise _refusal(host, port, "HTTP", "--http-port", error) from error
    return bound


def address_of(host: str, port: int) -> str:
    """`host:port`, with the brackets that an IPv6 address needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _resolved(host: str, port: int) -> tuple[int, Any]:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return family, address


def _refusal(host: str, port: int, what: str, option: str, error: OSError) -> UnavailableError:
    advice = f"choose another with {option}"
    if error.errno in {errno.EACCES, errno.EPERM}:
        advice = f"ports below 1024 need a privilege; {advice}"
    return UnavailableError(
        f"cannot listen on {address_of(host, port)} for {what}: {error.strerror or error}; {advice}"
    )
