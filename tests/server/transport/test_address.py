import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.transport.address import host_of


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0"),
        ("::", "::"),
        ("[::]", "::"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("face:b00c::1", "face:b00c::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("localhost", "localhost"),
        ("models.example.com", "models.example.com"),
        ("dns:localhost", "localhost"),
        ("dns:///localhost", "localhost"),
        ("DNS:///localhost", "localhost"),
        ("ipv4:127.0.0.1", "127.0.0.1"),
        ("ipv6:[::1]", "::1"),
        ("ipv6:::1", "::1"),
        ("unix:/run/p.sock", "unix:/run/p.sock"),
        ("unix:///run/p.sock", "unix:/run/p.sock"),
        ("unix:p.sock", "unix:p.sock"),
    ],
)
def test_what_a_server_can_listen_on(text: str, host: str) -> None:
    assert host_of(text) == host
    assert host_of(host) == host


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is empty or has spaces"),
        (" localhost", "it is empty or has spaces"),
        ("local\nhost", "it is empty or has spaces"),
        ("*", "0.0.0.0 means every IPv4 address, and :: every address"),
        ("localhost:8001", "give the port with --port, and the host alone: localhost"),
        ("0.0.0.0:8001", "give the port with --port, and the host alone: 0.0.0.0"),
        ("[::]:8001", r"give the port with --port, and the host alone: \[::\]"),
        ("dns:///localhost:8001", "give the port with --port, and the host alone: localhost"),
        ("ipv4:127.0.0.1:8001", "give the port with --port, and the host alone: 127.0.0.1"),
        ("ipv6:[::1]:8001", r"give the port with --port, and the host alone: \[::1\]"),
        ("ipv4:127.0.0.1,127.0.0.2", "one address is expected"),
        ("ipv4:localhost", "a numeric address is expected, such as ipv4:127.0.0.1"),
        ("dns://8.8.8.8/localhost", "a DNS server cannot be chosen"),
        ("http://localhost", "http: is no form that a server listens on"),
        ("grpc://localhost", "grpc: is no form"),
        ("xds:///service", "xds: is no form"),
        ("unix-abstract:penstock", "unix-abstract: is no form"),
        ("vsock:1:2", "it is no IPv6 address"),
        ("unix:", "the path of a socket file is expected"),
        ("unix://run/p.sock", "two slashes must be followed by an absolute path"),
        ("unix:/" + "a" * 100, "takes at most 100 bytes"),
        ("[::", "its bracket is not closed"),
        ("[localhost]", "only an IPv6 address stands in brackets"),
        ("local/host", "it is no host name"),
        ("user@host", "it is no host name"),
    ],
)
def test_what_it_cannot_is_refused_by_name(text: str, why: str) -> None:
    with pytest.raises(InvalidInputError, match=why) as caught:
        host_of(text)
    assert repr(text) in str(caught.value)
    assert "\n" not in str(caught.value)
