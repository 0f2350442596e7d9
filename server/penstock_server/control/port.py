"""Binds the server's ports before anything else starts; they stay the server's while workers come and go.

Workers of the native transport accept from the supervisor's own sockets (`transport.shared_port`). Those of the other
transports cannot: each listens on the port with SO_REUSEPORT. The supervisor's socket is then bound but does not listen: it
gets no connections, and holds the port while no worker listens. One such worker serves a socket file.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from penstock_server.errors import UnavailableError
from penstock_server.transport.shared_port import UNIX, SharedPort


@contextmanager
def listening_address(host: str, port: int) -> Iterator[str]:
    """Where workers bind sockets of their own, `host:port` or `unix:/path`, kept for this server until the end of the block.

    Raises:
        UnavailableError: another program listens there, or nobody can.
    """
    if host.startswith(UNIX):
        with _socket_file(host) as address:
            yield address
    else:
        with reserve(host, port) as reserved:
            yield address_of(host, reserved.getsockname()[1])


@contextmanager
def shared_port(host: str, port: int, workers: int) -> Iterator[tuple[str, SharedPort]]:
    """Where workers accept, `host:port` or `unix:/path`, and the port that they share, open until the end of the block.

    Raises:
        UnavailableError: as for `listening_address`.
    """
    with ExitStack() as ending:
        if host.startswith(UNIX):
            address = ending.enter_context(_socket_file(host))
            shared = SharedPort.bind(address, workers)
        else:
            try:
                shared = SharedPort.bind(address_of(host, port), workers)
            except OSError as error:
                raise _refusal(host, port, "gRPC", "--port", error) from error
            address = address_of(host, shared.number)
        ending.callback(shared.close)
        yield address, shared


@contextmanager
def rest_port(host: str, port: int, workers: int) -> Iterator[SharedPort]:
    """The REST port that workers share, open until the end of the block; port 0 takes a free one.

    Raises:
        UnavailableError: as for `listening_address`.
    """
    try:
        shared = SharedPort.bind(address_of(host, port), workers)
    except OSError as error:
        raise _refusal(host, port, "REST", "--rest-port", error) from error
    try:
        yield shared
    finally:
        shared.close()


@contextmanager
def _socket_file(host: str) -> Iterator[str]:
    """The address of a socket file that can be created; it is removed at the end of the block."""
    path = Path(host.removeprefix(UNIX)).absolute()
    _claim(path)
    try:
        yield f"{UNIX}{path}"
    finally:
        with suppress(OSError):
            path.unlink()


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
