import datetime as dt
import ipaddress

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from penstock_client import AsyncClient, Client, ServerUnavailableError, Tls

ROWS = {"age": 41, "city": "Oslo"}
DAY = dt.timedelta(days=1)


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


def test_a_trusted_server_answers(secure_server, authority, local):
    assert fare(secure_server(credentials(local)), tls=Tls(root_certificates=authority.pem)) == [82.0]


async def test_a_trusted_server_answers_asyncio(secure_server, authority, local):
    server = secure_server(credentials(local))
    async with AsyncClient(server.address, tls=Tls(root_certificates=authority.pem)) as client:
        assert (await client.predict("fares", ROWS))["fare"].tolist() == [82.0]


@pytest.mark.parametrize("tls", [True, None, Tls(root_certificates=Authority("another").pem)])
def test_a_server_that_is_not_trusted_gets_no_rows(secure_server, local, tls):
    server = secure_server(credentials(local))
    with pytest.raises(ServerUnavailableError):
        fare(server, tls=tls)
    assert server.seen == []


def test_the_servers_name_can_be_given(secure_server, authority):
    server = secure_server(credentials(authority.issue("server", x509.DNSName("models.example"))))
    assert fare(server, tls=Tls(root_certificates=authority.pem, server_name="models.example")) == [82.0]
    with pytest.raises(ServerUnavailableError):
        fare(server, tls=Tls(root_certificates=authority.pem))


def test_a_client_can_prove_who_it_is(secure_server, authority, local):
    server = secure_server(credentials(local, authority))
    certificate, key = authority.issue("client")
    tls = Tls(root_certificates=authority.pem, certificate_chain=certificate, private_key=key)
    assert fare(server, tls=tls) == [82.0]
    with pytest.raises(ServerUnavailableError):
        fare(server, tls=Tls(root_certificates=authority.pem))
