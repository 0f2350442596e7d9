from pathlib import Path

import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.tracing.settings import TracingSettings, certificates_in


@pytest.mark.parametrize(
    "endpoint",
    ["http://127.0.0.1:4318", "https://otel.example.org", "http://collector:4318/v1/traces", "http://[::1]:4317"],
)
def test_an_address_turns_tracing_on(endpoint: str) -> None:
    assert TracingSettings(endpoint).is_on
    assert not TracingSettings().is_on


@pytest.mark.parametrize(
    "endpoint",
    [
        "127.0.0.1:4318",
        "collector",
        "",
        "ftp://h:1",
        "http://",
        "http://h:port",
        "http://h:0",
        "http://h?a=b",
        "http://[",
    ],
)
def test_what_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidInputError, match=r"tracing.endpoint is .*expected http://HOST:PORT"):
        TracingSettings(endpoint)


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidInputError, match="OTEL_EXPORTER_OTLP_HEADERS") as caught:
        TracingSettings("http://me:secret@collector:4318")
    assert "secret" not in str(caught.value)


def test_a_file_of_authorities_is_read_or_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.touch()
    assert certificates_in({}) is None
    assert certificates_in({"OTEL_EXPORTER_OTLP_CERTIFICATE": ""}) is None
    assert certificates_in({"OTEL_EXPORTER_OTLP_CERTIFICATE": str(file)}) == file
    both = {"OTEL_EXPORTER_OTLP_CERTIFICATE": str(file), "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE": "/nowhere"}
    with pytest.raises(
        InvalidInputError, match="OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE is '/nowhere', which cannot be read"
    ):
        certificates_in(both)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_is_a_share(ratio: float) -> None:
    with pytest.raises(InvalidInputError, match="sample_ratio"):
        TracingSettings("http://h:1", sample_ratio=ratio)
