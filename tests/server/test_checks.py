import os
import resource
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstock_server import checks
from penstock_server.access.settings import AccessSettings, IssuerSettings, RuleSettings
from penstock_server.control.settings import HttpSettings
from penstock_server.errors import InvalidInputError
from penstock_server.models import onnx_model
from penstock_server.models.execution import ExecutionSettings, OwnExecutionSettings
from penstock_server.request_log.settings import RequestLogSettings
from penstock_server.settings import ServerSettings
from penstock_server.tracing.settings import TracingSettings
from penstock_server.transport.settings import TransportSettings


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(checks, "native_refusal", lambda: "")  # kernels are not in this cache
    return tmp_path / "cache"


def keys_at(address: str) -> AccessSettings:
    issuer = IssuerSettings("https://issuer.example", "penstock", jwks=address)
    return AccessSettings({"r": RuleSettings(("*",), ("infer",))}, {"corp": issuer})


def settings(folder: Path, **given: Any) -> ServerSettings:
    return ServerSettings(**{"model_repository": folder, **given})


def test_what_is_right_is_passed(tmp_path: Path) -> None:
    checks.check(settings(tmp_path, request_log=RequestLogSettings(tmp_path / "new" / "log")))
    assert (tmp_path / "new" / "log").is_dir()
    checks.check(ServerSettings(registry=f"sqlite:///{tmp_path}/registry.db"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model_repository": None}, "there is nowhere to get models from"),
        (
            {"model_repository": "missing"},
            r"the model repository .*/missing cannot be read \(No such file or directory\)",
        ),
        ({"model_repository": "file"}, r"the model repository .*/file cannot be read \(Not a directory\)"),
        ({"request_log": RequestLogSettings(Path("file"))}, r"request_log.directory is .*/file, .* \(File exists\)"),
        (
            {"request_log": RequestLogSettings(Path("file/log"))},
            r"request_log.directory is .*/file/log, which cannot be written to \(Not a directory\)",
        ),
        (
            {"grpc": TransportSettings(tls_certificate=Path("missing"), tls_key=Path("missing"))},
            "cannot read the TLS file .*missing: No such file",
        ),
    ],
)
def test_what_cannot_work_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], said: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    if isinstance(given.get("model_repository"), str):
        given = {"model_repository": tmp_path / given["model_repository"]}
    if "request_log" in given:
        given = {"request_log": RequestLogSettings(tmp_path / given["request_log"].directory)}
    with pytest.raises(InvalidInputError, match=said):
        checks.check(settings(tmp_path, **given))


def test_a_registry_needs_a_cache_and_a_folder_of_models_does_not(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("")
    checks.check(settings(tmp_path))
    (warning,) = checks.warnings(settings(tmp_path))
    assert warning.startswith(f"the cache folder {cache} cannot be written to: File exists")
    with pytest.raises(InvalidInputError, match=r"the cache folder .* File exists; set PENSTOCK_CACHE_DIR"):
        checks.check(ServerSettings(registry="http://mlflow:5000"))


def test_more_workers_than_cores_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "cores", lambda: 2)
    assert list(checks.warnings(settings(tmp_path, workers=2))) == []
    (warning,) = checks.warnings(settings(tmp_path, workers=3))
    assert warning.startswith("3 workers share 2 cores")


def test_a_transport_that_cannot_run_here_is_told_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = {True: "", False: "libnghttp2 cannot be loaded"}
    for runs, expected in ((True, "native"), (False, "completion-queue")):
        monkeypatch.setattr(checks, "native_refusal", lambda runs=runs: reasons[runs])
        given = settings(tmp_path, transport="native")
        assert checks.runnable(given) == settings(tmp_path, transport=expected)
        sentence = "libnghttp2 cannot be loaded; without the native transport, gRPC is served over completion-queue"
        assert list(checks.warnings(given)) == ([] if runs else [sentence])
    aio = settings(tmp_path, transport="aio")
    assert checks.runnable(aio) is aio
    with pytest.raises(
        InvalidInputError, match="over completion-queue, workers cannot share a socket file; set workers"
    ):
        checks.runnable(settings(tmp_path, transport="native", host="unix:/p", workers=2))


def test_little_shared_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(os.statvfs("/"))
    found[1], found[4] = 4096, 10
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(found))
    (warning,) = checks.warnings(settings(tmp_path))
    assert "has 0 MiB left, expected 1 or more for the counters" in warning


def test_the_limit_of_descriptors_is_raised_and_told_where_it_is_low(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
        (warning,) = checks.warnings(settings(tmp_path))
        assert checks.http_connections() == 75
        assert warning.startswith("a process may have 300 files and connections open, expected at least 576")
        checks.raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.mark.parametrize(
    ("execution", "said"),
    [
        (
            ExecutionSettings(("cuda",)),
            r"^execution.providers is \['cuda'\]: the installed onnxruntime does not offer cuda; .* onnxruntime-gpu",
        ),
        (
            ExecutionSettings(models={"m": OwnExecutionSettings(("tensorrt", "openvino"))}),
            r"^execution.models.m.providers is \['tensorrt', 'openvino'\]: the .* does not offer tensorrt or openvino; ",
        ),
    ],
)
def test_a_provider_that_must_run_and_is_not_there_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, execution: ExecutionSettings, said: str
) -> None:
    monkeypatch.setattr(onnx_model, "available", lambda: (CPU,))
    with pytest.raises(InvalidInputError, match=said):
        checks.check(settings(tmp_path, execution=execution))


def test_a_provider_that_is_preferred_and_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings(tmp_path, execution=ExecutionSettings(("openvino", "cuda", "cpu")))
    monkeypatch.setattr(onnx_model, "available", lambda: (CUDA, CPU))
    checks.check(given)
    (warning,) = checks.warnings(given)
    assert warning.startswith(
        "execution.providers is ['openvino', 'cuda', 'cpu'], of which some are not there: the installed onnxruntime does not "
        "offer openvino; run: "
    )


def test_workers_that_share_a_device_without_limits_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_model, "available", lambda: (CUDA, CPU))
    monkeypatch.setattr(checks, "cores", lambda: 2)
    models = {"small": OwnExecutionSettings(memory_mib=64), "wide": OwnExecutionSettings(("cuda",))}
    own = ExecutionSettings(models=models)
    (warning,) = checks.warnings(settings(tmp_path, workers=2, execution=own))
    assert warning == (
        "2 workers load each version onto the device, and none has a limit; set execution.models.wide.memory_mib to what a "
        "version may take in one worker"
    )
    assert not list(checks.warnings(settings(tmp_path, workers=1, execution=own)))
    monkeypatch.setattr(onnx_model, "available", lambda: ("OpenVINOExecutionProvider", CPU))
    unlimited = ExecutionSettings(("openvino",))  # it knows no limit
    assert not list(checks.warnings(settings(tmp_path, workers=2, execution=unlimited)))
    monkeypatch.setattr(onnx_model, "available", lambda: (CUDA, CPU))
    assert not list(
        checks.warnings(settings(tmp_path, workers=2, execution=ExecutionSettings(("cuda",), memory_mib=64)))
    )


def test_onnxruntime_is_not_asked_where_nothing_but_the_cpu_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor lives without it."""
    monkeypatch.setattr(onnx_model, "available", None)
    checks.check(settings(tmp_path))
    assert not list(checks.warnings(settings(tmp_path)))


ACCESS = AccessSettings({"r": RuleSettings(("*",), ("infer",))}, tokens=Path("tokens"))
CERTIFICATES = AccessSettings({"r": RuleSettings(("uri:*",), ("infer",))})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"access": ACCESS}, []),
        ({"access": ACCESS, "host": "unix:/run/penstock"}, []),
        ({"access": ACCESS, "host": "0.0.0.0"}, ["grpc.tls_certificate", "http.tls_certificate"]),
        (
            {"access": ACCESS, "host": "0.0.0.0", "http": HttpSettings(Path("a"), Path("b"))},
            ["grpc.tls_certificate"],
        ),
        ({"access": CERTIFICATES, "host": "0.0.0.0"}, []),
        ({"access": keys_at("http://issuer.example/keys")}, ["access.issuers.corp"]),
        ({"access": keys_at("http://127.0.0.1:80/keys")}, []),
        ({"access": keys_at("https://issuer.example/keys")}, []),
    ],
)
def test_what_the_network_could_read_or_replace_is_told(tmp_path: Path, given: dict[str, Any], said: list[str]) -> None:
    found = list(checks.warnings(settings(tmp_path, **given)))
    assert len(found) == len(said)
    assert all(word in each for word, each in zip(said, found, strict=True))


def test_files_of_access_are_read_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"cannot read .*tokens"):
        checks.check(settings(tmp_path, access=AccessSettings(ACCESS.rules, tokens=tmp_path / "tokens")))
    with pytest.raises(InvalidInputError, match=r"http.tls_certificate: cannot read"):
        checks.check(settings(tmp_path, http=HttpSettings(tmp_path / "a", tmp_path / "b")))


def test_the_file_of_authorities_for_traces_is_read_before_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tmp_path / "ca.pem"))
    checks.check(settings(tmp_path))
    with pytest.raises(InvalidInputError, match="OTEL_EXPORTER_OTLP_CERTIFICATE"):
        checks.check(settings(tmp_path, tracing=TracingSettings("http://127.0.0.1:4318")))


def test_traces_need_shared_memory_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = SimpleNamespace(f_bavail=3 << 8, f_frsize=1 << 12)
    monkeypatch.setattr(checks.os, "statvfs", lambda _: free)
    monkeypatch.setattr(checks, "_SHARED_MEMORY", tmp_path)
    two, traced = settings(tmp_path, workers=2), settings(tmp_path, workers=2, tracing=TracingSettings("http://h:1"))
    assert not any("--shm-size" in each for each in checks.warnings(two))
    assert any("has 3 MiB left, expected 4 or more" in each for each in checks.warnings(traced))
