import datetime as dt
import ipaddress

import grpc
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from penstock_client import AsyncClient, Client, ServerUnavailableError, Tls
from penstock_client.channel import addresses_of, call_metadata, channel_options, checked_address

ROWS = {"age": 41, "city": "Oslo"}
DAY = dt.timedelta(days=1)


@pytest.mark.parametrize("address", ["", "models", "dns:models"])
def test_an_address_has_a_port(address):
    with pytest.raises(ValueError, match="expected as host:port"):
        checked_address(address)


@pytest.mark.parametrize("address", ["models:8001", "[::1]:8001", "dns:///models:8001", "unix:/run/x.sock"])
def test_addresses_that_grpc_takes_are_left_alone(address):
    assert checked_address(address) == address


def test_limits_and_retries_are_ours_unless_options_say_otherwise():
    options = dict(channel_options(None, 7, [("grpc.keepalive_time_ms", 5)]))
    assert options["grpc.max_send_message_length"] == options["grpc.max_receive_message_length"] == 7
    assert options["grpc.enable_retries"] == 0
    assert options["grpc.keepalive_time_ms"] == 5
    assert "grpc.ssl_target_name_override" not in options


def test_a_server_name_overrides_the_targets():
    assert dict(channel_options(Tls(server_name="m"), 7, ()))["grpc.ssl_target_name_override"] == "m"


def test_header_names_are_lower_case():
    assert call_metadata({"Authorization": "Bearer x"}) == (("authorization", "Bearer x"),)
    assert call_metadata({}) == ()


def test_tls_reads_files(tmp_path):
    names = ("root_certificates", "certificate_chain", "private_key")
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    tls = Tls.from_files(**{name: tmp_path / name for name in names}, server_name="m")
    assert tls == Tls(**{name: name.encode() for name in names}, server_name="m")
    with pytest.raises(FileNotFoundError):
        Tls.from_files(root_certificates=tmp_path / "none")


def test_the_environment_names_files(tmp_path):
    file = tmp_path / "pem"
    file.write_bytes(b"pem")
    found = Tls.from_environment(
        {
            "PENSTOCK_CA": str(file),
            "PENSTOCK_CERT": str(file),
            "PENSTOCK_CERT_KEY": str(file),
            "PENSTOCK_SERVER_NAME": "m",
        }
    )
    assert found == Tls(root_certificates=b"pem", certificate_chain=b"pem", private_key=b"pem", server_name="m")
    assert Tls.from_environment({"PENSTOCK_TLS": "0", "PENSTOCK_CA": ""}) is None
    with pytest.raises(ValueError, match="together"):
        Tls.from_environment({"PENSTOCK_CERT": str(file)})
    with pytest.raises(FileNotFoundError):
        Tls.from_environment({"PENSTOCK_CA": str(tmp_path / "none")})


@pytest.mark.parametrize("given", ["", [], "a:1,", ["a:1", "b"]])
def test_each_of_several_addresses_has_a_port(given):
    with pytest.raises(ValueError, match="expected as host:port"):
        addresses_of(given)


class Authority:
    """A certificate authority of the test's own, which signs what it is asked to."""

    def __init__(self, name):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.certificate = self._signed(self.name, self.key.public_key(), x509.BasicConstraints(True, None))

    @property
    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, name, *alternatives):
        """A certificate for the name and its key, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        certificate = self._signed(subject, key.public_key(), x509.SubjectAlternativeName(alternatives))
        form = serialization.PrivateFormat.PKCS8
        private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
        return certificate.public_bytes(serialization.Encoding.PEM), private

    def _signed(self, subject, key, extension):
        now = dt.datetime.now(dt.UTC)
        builder = x509.CertificateBuilder(
            issuer_name=self.name,
            subject_name=subject,
            public_key=key,
            serial_number=x509.random_serial_number(),
            not_valid_before=now - DAY,
            not_valid_after=now + DAY,
        )
        return builder.add_extension(extension, critical=False).sign(self.key, hashes.SHA256())


@pytest.fixture(scope="module")
def authority():
    return Authority("the test's authority")


@pytest.fixture(scope="module")
def local(authority):
    return authority.issue("server", x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


def credentials(pair, authority=None):
    certificate, key = pair
    return grpc.ssl_server_credentials(
        [(key, certificate)],
        root_certificates=authority and authority.pem,
        require_client_auth=authority is not None,
    )


def fare(server, **settings):
    with Client(server.address, retries=0, **settings) as client:
        return client.predict("fares", ROWS)["fare"].tolist()


@pytest.mark.usefixtures("transport")
def test_a_trusted_server_answers(secure_server, authority, local):
    assert fare(secure_server(credentials(local)), tls=Tls(root_certificates=authority.pem)) == [82.0]


async def test_a_trusted_server_answers_asyncio(secure_server, authority, local):
    server = secure_server(credentials(local))
    async with AsyncClient(server.address, tls=Tls(root_certificates=authority.pem)) as client:
        assert (await client.predict("fares", ROWS))["fare"].tolist() == [82.0]


@pytest.mark.usefixtures("transport")
@pytest.mark.parametrize("tls", [True, None, Tls(root_certificates=Authority("another").pem)])
def test_a_server_that_is_not_trusted_gets_no_rows(secure_server, local, tls):
    server = secure_server(credentials(local))
    with pytest.raises(ServerUnavailableError):
        fare(server, tls=tls)
    assert server.seen == []


@pytest.mark.usefixtures("transport")
def test_the_servers_name_can_be_given(secure_server, authority):
    server = secure_server(credentials(authority.issue("server", x509.DNSName("models.example"))))
    assert fare(server, tls=Tls(root_certificates=authority.pem, server_name="models.example")) == [82.0]
    with pytest.raises(ServerUnavailableError):
        fare(server, tls=Tls(root_certificates=authority.pem))


@pytest.mark.usefixtures("transport")
def test_a_client_can_prove_who_it_is(secure_server, authority, local):
    server = secure_server(credentials(local, authority))
    certificate, key = authority.issue("client")
    tls = Tls(root_certificates=authority.pem, certificate_chain=certificate, private_key=key)
    assert fare(server, tls=tls) == [82.0]
    with pytest.raises(ServerUnavailableError):
        fare(server, tls=Tls(root_certificates=authority.pem))


@pytest.mark.usefixtures("transport")
async def test_messages_of_many_records_pass(secure_server, authority, local):
    server = secure_server(credentials(local))
    tls = Tls(root_certificates=authority.pem)
    rows = np.arange(600_000.0).reshape(-1, 2)
    with Client(server.address, tls=tls) as client:
        answers = client.predict_many("numbers", [rows, rows[:1], rows[:9000]] * 3, in_flight=4)
        assert [answer["features"].sum() for answer in answers] == [rows.sum(), 1.0, rows[:9000].sum()] * 3
    async with AsyncClient(server.address, tls=tls) as client:
        assert np.array_equal((await client.predict("numbers", rows))["features"], rows)
