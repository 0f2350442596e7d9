"""Reserves the gRPC port, which all workers share, so that it stays the server's while workers come and go.

Each worker listens on the port with SO_REUSEPORT. The supervisor's socket is bound but does not listen: it gets no
connections, and holds the port while no worker listens.
"""

import socket

from penstock_server.errors import UnavailableError


def reserve(host: str, port: int) -> socket.socket:
    """Binds the port until the socket is closed; port 0 takes a free one.

    Raises:
        UnavailableError: another program listens there, or the address is not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
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
        raise UnavailableError(
            f"cannot listen on {host}:{port} for gRPC: {error.strerror or error}; choose another with --port"
        ) from error
    return reserved


def address_of(host: str, port: int) -> str:
    """`host:port`, with the brackets that an IPv6 address needs."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
