"""The forms of address that gRPC users write, as a host to listen on: each is understood, or refused by name."""

import re
from ipaddress import ip_address
from typing import Final

from penstock_server.errors import InvalidInputError

UNIX: Final = "unix:"
_SCHEME: Final = re.compile(r"(ipv4|ipv6):(.*)|([A-Za-z][A-Za-z0-9+.-]*):(?!\d)(.*)", re.DOTALL | re.IGNORECASE)
_IP: Final = {"ipv4": "ipv4:127.0.0.1", "ipv6": "ipv6:[::1]"}
_MAX_PATH_BYTES: Final = 100
"""Linux takes 107 bytes for the path of a socket, macOS 103."""


def host_of(text: str) -> str:
    """The host in an address: a name or a number without brackets, or `unix:/path` for a socket file.

    Raises:
        InvalidInputError: nothing can listen there, or a port is in it.
    """
    if not text or text != text.strip() or not text.isprintable():
        raise _refused(text, "it is empty or has spaces in it")
    if _is_ip(text):
        return text
    host = text
    if found := _SCHEME.fullmatch(text):
        scheme, rest = (found[1] or found[3]).lower(), found[2] or found[4] or ""
        if scheme in _IP:
            return _ip(text, scheme, rest)
        if scheme == "unix":
            return UNIX + _path(text, rest)
        if scheme == "dns":
            # dns:name or dns:///name; an authority names the DNS server to ask.
            if rest.startswith("//") and not rest.startswith("///"):
                raise _refused(text, "a DNS server cannot be chosen")
            host = rest.removeprefix("///")
        else:
            raise _refused(text, f"{scheme}: is no form that a server listens on")
    return _without_port(text, host)


def _is_ip(text: str) -> bool:
    try:
        return bool(ip_address(text.partition("%")[0]))
    except ValueError:
        return False


def _ip(text: str, scheme: str, rest: str) -> str:
    if "," in rest:
        raise _refused(text, f"one address is expected, such as {_IP[scheme]}")
    host = rest if _is_ip(rest) else _without_port(text, rest)
    if not _is_ip(host):
        raise _refused(text, f"a numeric address is expected, such as {_IP[scheme]}")
    return host


def _without_port(text: str, host: str) -> str:
    if host.startswith("["):
        inside, closed, after = host[1:].partition("]")
        if not closed:
            raise _refused(text, "its bracket is not closed")
        if after.startswith(":"):
            raise _refused(text, f"give the port with --port, and the host alone: {host[: -len(after)]}")
        if after or ":" not in inside:
            raise _refused(text, "only an IPv6 address stands in brackets")
        return inside
    if host.count(":") == 1:
        raise _refused(text, f"give the port with --port, and the host alone: {host.partition(':')[0]}")
    if host == "*":
        raise _refused(text, "0.0.0.0 means every IPv4 address, and :: every address")
    if ":" in host and not _is_ip(host):
        raise _refused(text, "it is no IPv6 address")
    if not host or re.search(r"[/\s@?#]", host):
        raise _refused(text, "it is no host name")
    return host


def _path(text: str, rest: str) -> str:
    """The path of a socket file in `unix:path`, `unix:/path` or `unix:///path`."""
    if rest.startswith("//"):
        rest = rest[2:]
        if not rest.startswith("/"):
            raise _refused(text, "two slashes must be followed by an absolute path, as in unix:///run/penstock.sock")
    if not rest:
        raise _refused(text, "the path of a socket file is expected, as in unix:/run/penstock.sock")
    if len(rest.encode()) > _MAX_PATH_BYTES:
        raise _refused(text, f"the path of a socket file takes at most {_MAX_PATH_BYTES} bytes")
    return rest


def _refused(text: str, why: str) -> InvalidInputError:
    return InvalidInputError(
        f"host is {text[:200]!r}, and the server cannot listen on it: {why}; expected a host name, an IPv4 or IPv6 address, "
        "or unix:/path"
    )
