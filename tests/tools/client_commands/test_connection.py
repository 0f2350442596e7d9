"""The sentences for the ways in which two sides do not agree on TLS, with real servers on both sides."""

import datetime as dt
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from penstock_client import ServerUnavailableError
from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_tools.client_commands.connection import Encryption, connected

DAY = dt.timedelta(days=1)


class Authority:
    def __init__(self, folder, name):
        self.folder, self.name = folder, name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.file = self._written(name, self._signed(self.subject, self.key.public_key(), is_authority=True))

    def issue(self, name, address="127.0.0.1"):
        """The files of a certificate for this address and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = self._written(name, self._signed(subject, key.public_key(), address=address))
        private = self.folder / f"{name}.key"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return certificate, private

    def _signed(self, subject, public_key, *, is_authority=False, address=None):
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + DAY)
            .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
        )
        if address is not None:
            names = [x509.IPAddress(ipaddress.ip_address(address)), x509.DNSName("models")]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def _written(self, name, certificate):
        file = self.folder / f"{name}.pem"
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return file


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = Authority(folder, "authority"), Authority(folder, "stranger")
    return {
        "authority": authority.file,
        "stranger": stranger.file,
        "server": authority.issue("server"),
        "elsewhere": authority.issue("elsewhere", "127.0.0.2"),
        "client": authority.issue("client"),
        "foreigner": stranger.issue("foreigner"),
    }


def credentials(files, certificate, *, asks=False):
    chain, key = files[certificate]
    return grpc.ssl_server_credentials(
        [(key.read_bytes(), chain.read_bytes())], files["authority"].read_bytes() if asks else None, asks
    )


@pytest.fixture(scope="module")
def addresses(files):
    """The address of a server of each kind."""
    kinds = {
        "plain": None,
        "tls": credentials(files, "server"),
        "elsewhere": credentials(files, "elsewhere"),
        "mutual": credentials(files, "server", asks=True),
    }
    servers, found = [], {}
    for kind, secret in kinds.items():
        server = grpc.server(ThreadPoolExecutor(1))
        live = {"ServerLive": grpc.unary_unary_rpc_method_handler(lambda _message, _context: b"\x08\x01")}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("inference.GRPCInferenceService", live),))
        at = "127.0.0.1:0"
        port = server.add_insecure_port(at) if secret is None else server.add_secure_port(at, secret)
        found[kind] = f"127.0.0.1:{port}"
        server.start()
        servers.append(server)
    yield found
    for server in servers:
        server.stop(None).wait()


def asked(address, encryption):
    """Calls as a command does: a server that cannot be reached is an error."""
    with connected(address, encryption, timeout_s=5.0) as client:
        if not client.is_live():
            raise ServerUnavailableError("unreachable")
        return True


def options(files, **named):
    chosen = {}
    for option, value in named.items():
        if option == "pair":
            chosen["certificate"], chosen["key"] = files[value]
        else:
            chosen[option] = files[value] if option == "ca" else value
    return Encryption(**chosen)


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        ("plain", {}),
        ("tls", {"ca": "authority"}),
        ("tls", {"ca": "authority", "pair": "client"}),
        ("mutual", {"ca": "authority", "pair": "client"}),
        ("elsewhere", {"ca": "authority", "server_name": "models"}),
    ],
)
def test_both_sides_agree(addresses, files, kind, named):
    assert asked(addresses[kind], options(files, **named))


@pytest.mark.parametrize(
    ("kind", "named", "sentence"),
    [
        ("tls", {}, "speaks TLS; add --tls"),
        ("mutual", {}, "speaks TLS; add --tls"),
        ("plain", {"tls": True}, "does not speak TLS; leave out --tls"),
        ("plain", {"ca": "authority", "pair": "client"}, "does not speak TLS; leave out --tls"),
        ("tls", {"tls": True}, "has a certificate that is not trusted (.*); name its authority with --ca"),
        ("tls", {"ca": "stranger"}, "has a certificate that is not trusted"),
        ("elsewhere", {"ca": "authority"}, "IP address mismatch.*--server-name"),
        ("mutual", {"ca": "authority"}, "refuses the connection; .*: --cert FILE --cert-key FILE"),
        ("mutual", {"ca": "authority", "pair": "foreigner"}, "refuses the connection; .* that it trusts"),
    ],
)
def test_they_do_not(addresses, files, kind, named, sentence):
    with pytest.raises(InvalidInputError, match=f"^the server at {addresses[kind]} .*{sentence}"):
        asked(addresses[kind], options(files, **named))


@pytest.mark.parametrize("tls", [False, True])
def test_nobody_is_there(tls):
    with pytest.raises(UnavailableError, match=r"no server answers at 127.0.0.1:9; start one with"):
        asked("127.0.0.1:9", Encryption(tls=tls))


@pytest.mark.parametrize("tls", [False, True])
def test_somebody_who_says_nothing(tls, monkeypatch):
    monkeypatch.setattr("penstock_tools.client_commands.connection.LOOK_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        with (
            pytest.raises(UnavailableError, match="no server answers at"),
            connected(address, Encryption(tls=tls), timeout_s=0.5),
        ):
            raise ServerUnavailableError("gone")


@pytest.mark.parametrize("address", ["http://127.0.0.1:8001", "nonsense", ""])
def test_what_is_no_address(address):
    with pytest.raises(InvalidInputError, match="--server is"), connected(address):
        pass


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ({"ca": "nowhere.pem"}, "nowhere.pem cannot be read: No such file"),
        ({"ca": "."}, "cannot be read: Is a directory"),
        ({"ca": "garbage.pem"}, "garbage.pem holds no certificates in PEM"),
        ({"certificate": "client.pem"}, "--cert-key is missing; --cert and --cert-key go together"),
        ({"key": "client.key"}, "--cert is missing"),
        ({"certificate": "garbage.pem", "key": "garbage.pem"}, "are no certificate and its key in PEM"),
        (
            {"certificate": "client.pem", "key": "server.key"},
            "are no certificate and its key in PEM: key values mismatch",
        ),
    ],
)
def test_files_that_are_wrong(files, named, sentence):
    folder = files["authority"].parent
    (folder / "garbage.pem").write_text("garbage")
    with pytest.raises(InvalidInputError, match=sentence):
        Encryption(**{option: folder / name for option, name in named.items()}).credentials()
