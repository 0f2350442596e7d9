import shutil
import ssl
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from penstock_server.errors import InvalidInputError
from penstock_server.transport.tls_files import TlsContext, TlsFiles, tls_files


@pytest.mark.parametrize("authority", [None, "other.pem"])
def test_tls_files_that_fit_are_accepted(tls: Path, authority: str | None) -> None:
    TlsFiles("grpc", tls / "server.pem", tls / "server.key", None if authority is None else tls / authority).check()


@pytest.mark.parametrize(
    ("certificate", "key", "authority", "said"),
    [
        ("nope", "server.key", None, "grpc.tls_certificate: cannot read the TLS file {}/nope: No such file"),
        ("folder", "server.key", None, "grpc.tls_certificate: cannot read the TLS file {}/folder: Is a directory"),
        ("garbage", "server.key", None, "grpc.tls_certificate: {}/garbage holds no PEM certificate"),
        ("empty", "server.key", None, "grpc.tls_certificate: {}/empty holds no PEM certificate"),
        ("broken", "server.key", None, "grpc.tls_certificate: {}/broken holds no PEM certificate"),
        ("server.key", "server.key", None, "grpc.tls_certificate: {}/server.key holds no PEM certificate"),
        ("server.pem", "nope", None, "grpc.tls_key: cannot read the TLS file {}/nope: No such file"),
        ("server.pem", "garbage", None, "grpc.tls_key: {}/garbage holds no PEM private key"),
        ("server.pem", "server.pem", None, "grpc.tls_key: {}/server.pem holds no PEM private key"),
        (
            "server.pem",
            "other.key",
            None,
            "grpc.tls_key: {0}/other.key is not the key of the certificate in {0}/server.pem",
        ),
        ("server.pem", "encrypted.key", None, "grpc.tls_key: {}/encrypted.key is encrypted"),
        ("server.pem", "server.key", "nope", "grpc.tls_client_ca: cannot read the TLS file {}/nope: No such file"),
        ("server.pem", "server.key", "garbage", "grpc.tls_client_ca: {}/garbage holds no PEM certificate"),
        ("server.pem", "server.key", "other.key", "grpc.tls_client_ca: {}/other.key holds no PEM certificate"),
    ],
)
def test_tls_files_that_do_not_are_one_sentence(
    tls: Path, certificate: str, key: str, authority: str | None, said: str
) -> None:
    files = TlsFiles("grpc", tls / certificate, tls / key, None if authority is None else tls / authority)
    with pytest.raises(InvalidInputError) as caught:
        files.check()
    assert str(caught.value).startswith(said.format(tls))
    assert "\n" not in str(caught.value)


def test_half_of_what_is_needed_is_refused(tls: Path) -> None:
    one = tls / "server.pem"
    assert tls_files("http", None, None, None) is None
    for certificate, key, authority in ((one, None, None), (None, one, None)):
        with pytest.raises(InvalidInputError, match="http: TLS takes a certificate and its key"):
            tls_files("http", certificate, key, authority)
    with pytest.raises(InvalidInputError, match="http: a client CA needs"):
        tls_files("http", None, None, one)


@pytest.mark.parametrize("requires", [True, False])
def test_files_are_read_again_when_they_change(tls: Path, tmp_path: Path, requires: bool) -> None:
    for name in ("server.pem", "server.key"):
        shutil.copy(tls / name, tmp_path / name)
    files = TlsFiles("http", tmp_path / "server.pem", tmp_path / "server.key", tls / "client.pem")
    context = TlsContext(files, "h2", requires_certificate=requires)
    first = context.current()
    assert first.verify_mode is (ssl.CERT_REQUIRED if requires else ssl.CERT_OPTIONAL)
    assert context.current() is first
    with capture_logs() as logs:
        for broken in ("garbage", "encrypted.key"):
            shutil.copy(tls / broken, tmp_path / "server.key")
            assert context.current() is first
        (tmp_path / "server.key").unlink()
        assert context.current() is first
    assert len(logs) == 3
    for end in ("pem", "key"):
        shutil.copy(tls / f"other.{end}", tmp_path / f"server.{end}")
    assert context.current() is not first
