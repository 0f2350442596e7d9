import socket

import pytest

from penstock_client import Client, Tls
from penstock_client.http2 import target
from penstock_client.http2.target import Target, milliseconds, target_of


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch):
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)


def found(address="a:1", *, tls=None, headers=None, options=(), max_message_bytes=2**26):
    return target_of(address, tls, headers or {}, options, max_message_bytes)


@pytest.mark.parametrize(
    ("address", "host", "port", "path", "authority"),
    [
        ("models:8001", "models", 8001, "", "models:8001"),
        ("127.0.0.1:1", "127.0.0.1", 1, "", "127.0.0.1:1"),
        ("[::1]:8001", "::1", 8001, "", "[::1]:8001"),
        ("dns:models:8001", "models", 8001, "", "models:8001"),
        ("dns:///models:8001", "models", 8001, "", "models:8001"),
        ("unix:/run/x.sock", "", 0, "/run/x.sock", "localhost"),
        ("unix:///run/x.sock", "", 0, "/run/x.sock", "localhost"),
    ],
)
def test_plain_addresses_are_targets(address, host, port, path, authority):
    assert found(address) == Target(host, port, path, authority)


@pytest.mark.parametrize(
    "address",
    [
        "xds:///models",
        "dns://8.8.8.8/models:1",
        "ipv4:127.0.0.1:1",
        "ipv6:[::1]:1",
        "unix-abstract:x",
        "::1:8001",
        "models:http",
        "models:65536",
        "mödels:1",
        ":1",
        "[fe80::1%eth0]:1",
    ],
)
def test_other_addresses_are_grpcs(address):
    assert "resolver" in found(address)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"options": [("grpc.lb_policy_name", "round_robin")]}, "options"),
        ({"max_message_bytes": 2**31}, "longer than a window"),
        ({"tls": Tls(certificate_chain=b"c", private_key=b"k")}, "client certificate"),
        ({"address": "unix:/x", "tls": Tls()}, "socket file"),
        *(
            ({"headers": {name: value}}, "not plain text")
            for name, value in [
                ("x-bin", "AA"),
                ("grpc-x", "1"),
                ("a b", "1"),
                ("a", "ä"),
                ("a", "x\n"),
                ("a", " x"),
                ("a", b"x"),
                ("", "x"),
                ("user-agent", "x"),
                (":path", "/"),
                ("a", "x" * 9000),
            ]
        ),
    ],
)
def test_what_is_not_plain_is_grpcs(settings, words):
    assert words in found(**settings)


def test_headers_of_plain_text_are_sent():
    assert isinstance(found(headers={"Authorization": "Bearer x.y-z", "x-1": ""}), Target)


@pytest.mark.parametrize(
    ("variables", "is_direct"),
    [
        ({"http_proxy": "http://p:1"}, False),
        ({"grpc_proxy": "http://p:1"}, False),
        ({"https_proxy": ""}, True),
        ({"https_proxy": "http://p:1", "no_proxy": "other, .example"}, True),
        ({"https_proxy": "http://p:1", "no_proxy": "other"}, False),
        ({"https_proxy": "http://p:1", "no_grpc_proxy": "x", "no_proxy": ".example"}, False),
    ],
)
def test_proxies_are_grpcs(monkeypatch, variables, is_direct):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert isinstance(found("Models.Example:1"), Target) is is_direct
    assert isinstance(found("unix:/x"), Target)


def test_only_linux_and_its_own_sockets_do(monkeypatch):
    monkeypatch.setattr(socket.socket, "__module__", "gevent._socket3")
    assert "sockets" in found()
    monkeypatch.undo()
    monkeypatch.setattr(target.sys, "platform", "darwin")
    assert "sockets" in found()


def test_tls_has_grpcs_own_roots_or_those_given(monkeypatch, tmp_path):
    own = found(tls=Tls())
    assert (own.server_name, own.authority) == ("a", "a:1")
    assert own.context.get_ca_certs()
    assert (found(tls=Tls(server_name="m")).server_name, found(tls=Tls(server_name="m")).authority) == ("m", "m")
    monkeypatch.setenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", str(tmp_path / "none"))
    assert "cannot be read" in found(tls=Tls())
    assert "cannot be read" in found(tls=Tls(root_certificates=b"no PEM"))
    assert "cannot be read" in found(tls=Tls(root_certificates=b"\xff"))


def test_sockets_that_cannot_be_are_refused_by_name():
    with pytest.raises(ValueError, match="transport='sockets' does not do here: channel options are set"):
        Client("a:1", transport="sockets", options=[("a", 1)])
    with pytest.raises(ValueError, match="transport is expected as one of"):
        Client("a:1", transport="pigeons")


@pytest.mark.parametrize(("seconds", "whole"), [(1e-9, 1), (0.25, 250), (0.2501, 251), (1e6, 10**9)])
def test_timeouts_are_rounded_up(seconds, whole):
    assert milliseconds(seconds) == whole
