from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from penstock_server import settings as module
from penstock_server.batching.limits import DEVICE_ROWS, THREADED_ROWS, BatchLimits, ModelLimits
from penstock_server.control.verdict import LoadSettings
from penstock_server.drift.report import DriftRules
from penstock_server.errors import InvalidInputError
from penstock_server.models.execution import ExecutionSettings, OwnExecutionSettings
from penstock_server.request_log.settings import RequestLogSettings
from penstock_server.settings import (
    DriftSettings,
    ModelSettings,
    OwnDriftSettings,
    OwnModelSettings,
    ServerSettings,
    WorkerSettings,
    read_settings,
)
from penstock_server.transport.settings import TransportSettings

WHOLE = """
registry = "sqlite:///registry.db"
models = ["churn", "fraud"]
model_repository = "models"
host = "0.0.0.0"
port = 9000
http_port = 9001
workers = 3
transport = "aio"
poll_interval_s = 1
grace_s = 2.5

[batching]
max_rows = 128
max_delay_s = 0.002
queue_rows = 100
queue_requests = 50
queue_mib = 2
objective_ms = 50
batching = "rows"

[batching.models.fraud]
max_rows = 8
objective_ms = 5.5
batching = "request"

[serving]
threads = 2
inline_budget_ms = 0
plain_requests = false

[serving.models.fraud]
threads = 4

[drift]
window_rows = 500
rate = 0.01
minimum_effect = 0.2
series = 20
window_hours = 12
false_alarm_looks = 1e6
skip_repeats = false

[drift.models.fraud]
window_rows = 2000

[grpc]
max_message_bytes = 1000000
tls_certificate = "server.pem"
tls_key = "server.key"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "penstock.toml"


def test_without_a_file_there_are_defaults() -> None:
    assert read_settings(None) == ServerSettings()
    assert ServerSettings().batching == BatchLimits()


def test_a_file_names_every_setting(file: Path) -> None:
    file.write_text(WHOLE)
    assert read_settings(file) == ServerSettings(
        registry="sqlite:///registry.db", models=("churn", "fraud"), model_repository=Path("models"), host="0.0.0.0",
        port=9000, http_port=9001, workers=3, transport="aio", poll_interval_s=1.0, grace_s=2.5,
        batching=BatchLimits(
            128, 0.002, 100, 50, 2, 50.0, {"fraud": ModelLimits(max_rows=8, objective_ms=5.5, batching="request")}, "rows"
        ),
        serving=ModelSettings(2, 0.0, {"fraud": OwnModelSettings(4)}, False),
        drift=DriftSettings(500, 12.0, 0.01, 0.2, 1e6, 20, False, {"fraud": OwnDriftSettings(window_rows=2000)}),
        grpc=TransportSettings(1_000_000, tls_certificate=Path("server.pem"), tls_key=Path("server.key")),
    )  # fmt: skip


def test_what_the_command_line_says_wins(file: Path) -> None:
    file.write_text(WHOLE)
    settings = read_settings(file, port=1, models=("only",), model_repository=Path("elsewhere"), host=None)
    assert (settings.port, settings.models, settings.model_repository) == (1, ("only",), Path("elsewhere"))
    assert settings.host == "0.0.0.0"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ports = 1", r"unknown settings ports; did you mean port\?"),
        (
            "zzz = 1",
            "unknown settings zzz; expected some of access, airlock, batching, cache, drift, execution, fetch, ",
        ),
        ("port = 8001\nhttp_port = 8001", "port and http_port are both 8001, expected two ports"),
        ("rest_port = 8002", "http_port and rest_port are both 8002, expected two ports"),
        ("rest_port = 70000", "rest_port is 70000, expected 0 to 65535"),
        ("[batching]\nmax_row = 5", r"unknown settings batching.max_row; did you mean batching.max_rows\?"),
        ("[grpc]\na = 1\nb = 2", "unknown settings grpc.a, grpc.b; expected"),
        ("port = 65536", "port is 65536, expected 0 to 65535"),
        ("http_port = -1", "http_port is -1, expected 0 to 65535"),
        ("workers = 0", "workers is 0, expected 1 to 256"),
        ("workers = 257", "workers is 257, expected 1 to 256"),
        ("workers = 'all'", "workers is 'all', expected 1 to 256 or 'auto'"),
        (
            "host = 'unix:/p'\nworkers = 2\ntransport = 'aio'",
            "over aio, workers cannot share a socket file; set workers to 1 or",
        ),
        ("poll_interval_s = 0", "poll_interval_s takes more than 0 seconds and grace_s 0 or more, got 0.0 and 30.0"),
        ("poll_interval_s = nan", "got nan and 30.0"),
        ("grace_s = -1", "got 1.0 and -1.0"),
        ("grace_s = inf", "got 1.0 and inf"),
        ("[batching]\nmax_rows = 0", "batching.max_rows is 0, expected at least 1"),
        ("[batching]\nmax_delay_s = nan", "max_delay_s is nan, expected 0 or more seconds"),
        ("[batching]\nobjective_ms = 0", "objective_ms is 0.0, expected more than 0 milliseconds"),
        ("[batching]\nobjective_ms = nan", "objective_ms is nan"),
        (
            "[batching.models.m]\nmax_row = 1",
            r"unknown settings batching.models.m.max_row; did you mean batching.models.m.max_rows\?",
        ),
        ("[batching.models.m]\nmax_rows = 0", "batching.models.m.max_rows is 0, expected at least 1"),
        ("[batching.models]\nm = 5", r"at `\$.batching.models"),
        ("[serving]\nthreads = 0", "serving.threads is 0, expected at least 1"),
        ("[serving]\nplain_requests = 1", r"Expected `bool`, got `int` - at `\$.serving.plain_requests`"),
        ("[serving]\ninline_budget_ms = nan", "serving.inline_budget_ms is nan, expected 0 or more"),
        ("[serving.models.m]\nthreads = 0", "serving.models.m.threads is 0, expected at least 1"),
        ("[drift]\nwindow_rows = 9", "drift.window_rows is 9, expected at least 10"),
        ("[drift]\nrate = 0", "drift.rate is 0.0, expected a share above 0 and below 1"),
        ("[drift]\nrate = nan", "drift.rate is nan, expected a share"),
        ("[drift]\nminimum_effect = -0.1", "drift.minimum_effect is -0.1, expected 0 or more"),
        ("[drift]\nminimum_effect = inf", "drift.minimum_effect is inf, expected 0 or more"),
        ("[drift]\nwindow_hours = 0", "drift.window_hours is 0.0, expected more than 0 hours"),
        ("[drift]\nfalse_alarm_looks = 0.5", "drift.false_alarm_looks is 0.5, expected 1 look or more"),
        ("[drift.models.fraud]\nwindow_rows = 1", "drift.models.fraud.window_rows is 1, expected at least 10"),
        ("[drift]\nseries = -1", "drift.series is -1, expected 0 or more"),
        ("[request_log]\nsample_ratio = 0", "request_log.sample_ratio is 0.0, expected a share above 0 and at most 1"),
        ("[request_log]\nsample_ratio = 1.5", "request_log.sample_ratio is 1.5"),
        ("[request_log]\nsample_ratio = nan", "request_log.sample_ratio is nan"),
        ("[request_log]\nrotate_s = 0", "request_log.rotate_s is 0.0, expected more than 0 seconds"),
        ("[request_log]\nrotate_s = inf", "request_log.rotate_s is inf"),
        ("[request_log]\nrotate_bytes = 4095", "request_log.rotate_bytes is 4095, expected from 4096 to a quarter"),
        ("[request_log]\nmax_bytes = 100000000", "a quarter of max_bytes, which is 100000000"),
        ("[request_log]\ndirectory = 1", r"expected Path, got int - at `\$.request_log.directory`"),
        ("[request_log]\nratio = 1", "unknown settings request_log.ratio; expected some of request_log.directory, "),
        ("[grpc]\ntls_key = 'k'", "TLS takes a certificate and its key"),
        ("port = '80'", r"Expected `int`, got `str` - at `\$.port`"),
        ("port = true", r"Expected `int`, got `bool` - at `\$.port`"),
        ("transport = 'carrier pigeon'", r"Invalid enum value 'carrier pigeon' - at `\$.transport`"),
        ("model_repository = 5", r"expected Path, got int - at `\$.model_repository`"),
        ("batching = 5", r"at `\$.batching`"),
        ("port =", "is not TOML"),
        ("port = 1\nport = 2", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named(file: Path, text: str, said: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=said):
        read_settings(file)


@pytest.mark.parametrize("text", ["port = '80'", "ports = 1", "port ="])
def test_the_file_is_named(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=r"penstock\.toml"):
        read_settings(file)


def test_a_file_that_cannot_be_read(file: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"cannot read the settings file .*penstock\.toml: No such file"):
        read_settings(file)
    file.write_bytes(b"host = '\xff'")
    with pytest.raises(InvalidInputError, match="is not TOML"):
        read_settings(file)


def test_as_many_workers_as_cores(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("workers = 'auto'")
    for cores, workers in ((3, 3), (1000, 256)):
        monkeypatch.setattr(module, "cores", lambda cores=cores: cores)
        assert read_settings(file).workers == read_settings(None, workers="auto").workers == workers
    assert read_settings(file, workers=2).workers == 2


def test_native_workers_share_a_socket_file() -> None:
    assert ServerSettings(host="unix:/p", workers=2, transport="native").workers == 2


@pytest.mark.parametrize("overrides", [{"port": 70000}, {"workers": 0}, {"transport": "none"}, {"port": "80"}])
def test_the_command_line_is_checked_too(overrides: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"|".join(overrides)):
        read_settings(None, **overrides)


def test_requests_are_logged_where_a_directory_says(file: Path) -> None:
    assert ServerSettings().request_log.directory is None
    file.write_text(
        "[request_log]\ndirectory = 'requests'\nsample_ratio = 1\nmax_bytes = 400000\nrotate_bytes = 100000"
    )
    expected = RequestLogSettings(Path("requests"), 1.0, 400_000, 100_000)
    assert read_settings(file).request_log == expected


def test_a_worker_gets_every_setting_of_its_tables_and_no_address_of_a_registry(file: Path) -> None:
    file.write_text(f'{WHOLE}\n[request_log]\ndirectory = "requests"\nrotate_s = 5')
    settings = replace(read_settings(file), registry="postgresql://user:secret@host/db")
    text = settings.of_worker.to_json()
    assert "secret" not in text
    found = WorkerSettings.from_json(text)
    for each in fields(found):
        assert getattr(found, each.name) == getattr(settings, each.name)


def test_a_model_may_have_threads_of_its_own() -> None:
    settings = ModelSettings(threads=2, models={"fraud": OwnModelSettings(4)})
    assert [settings.threads_of(name) for name in ("churn", "fraud")] == [2, 4]


def test_models_are_pinned_by_name_or_pattern(file: Path) -> None:
    assert not ServerSettings().residency.is_on
    file.write_text('[residency]\nmemory_budget_mib = 500\npinned = ["fraud", "pricing-*"]')
    residency = read_settings(file).residency
    pinned = [name for name in ("fraud", "fraud-2", "pricing-eu", "Pricing-us", "other") if residency.is_pinned(name)]
    assert (residency.is_on, pinned) == (True, ["fraud", "pricing-eu"])


def test_the_airlock_and_the_watchdog_have_settings(file: Path) -> None:
    settings = ServerSettings()
    assert (settings.airlock.memory_mib, settings.airlock.timeout_s) == (4096, 120.0)
    assert (settings.watchdog.silent_s, settings.watchdog.run_s, settings.watchdog.load_s) == (10.0, 60.0, 240.0)
    file.write_text("watchdog_s = 5\nrun_limit_s = 20\n[airlock]\nmemory_mib = 512\ntimeout_s = 30")
    settings = read_settings(file)
    assert (settings.airlock.memory_mib, settings.airlock.timeout_s) == (512, 30.0)
    assert (settings.watchdog.silent_s, settings.watchdog.run_s, settings.watchdog.load_s) == (5.0, 20.0, 60.0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("watchdog_s = 2.5", "watchdog_s is 2.5, expected at least 3 seconds"),
        ("run_limit_s = nan", "run_limit_s is nan, expected at least 3 seconds"),
        ("[residency]\nmemory_budget_mib = 0", "residency.memory_budget_mib is 0, expected at least 1"),
        ("[residency]\nwait_s = nan", "residency.wait_s is nan, expected more than 0 seconds"),
        ("[residency]\nstay_s = -1", "residency.stay_s is -1.0, expected 0 seconds or more"),
        ("[residency]\nwaiting_calls = -1", "residency.waiting_calls is -1, expected 0 or more"),
        (
            "[residency]\nmemory_budget_mib = 500\n[airlock]\nmemory_budget_mib = 500",
            "residency.memory_budget_mib and airlock.memory_budget_mib are both set, expected one of them",
        ),
        ("[airlock]\nmemory_mib = 100", "airlock.memory_mib is 100, expected at least 256"),
        ("[airlock]\ntimeout_s = 0.5", "airlock.timeout_s is 0.5, expected at least 1 second"),
        ("[airlock]\ntimeout_s = inf", "airlock.timeout_s is inf"),
        ("[airlock]\nmemory = 100", "unknown settings airlock.memory; did you mean airlock.memory_mib"),
    ],
)
def test_limits_that_make_no_sense_are_refused(file: Path, text: str, sentence: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=sentence):
        read_settings(file)


def test_a_model_is_loaded_by_its_own_settings() -> None:
    settings = ServerSettings(
        serving=ModelSettings(threads=2, models={"fraud": OwnModelSettings(4)}),
        batching=BatchLimits(max_rows=32, models={"fraud": ModelLimits(max_rows=8)}),
    )
    assert settings.load_settings("churn") == LoadSettings(2, 32)
    assert settings.load_settings("fraud") == LoadSettings(4, 8)


EXECUTION = """
[execution]
providers = ["tensorrt", "cuda", "cpu"]
device = 1
memory_mib = 2048

[execution.options.cuda]
use_tf32 = true
cudnn_conv_algo_search = "DEFAULT"

[execution.models.fraud]
providers = ["cuda"]

[execution.models.tiny]
providers = ["cpu"]
"""


def test_providers_have_settings(file: Path) -> None:
    file.write_text(EXECUTION)
    settings = read_settings(file)
    assert settings.execution == ExecutionSettings(
        ("tensorrt", "cuda", "cpu"),
        1,
        2048,
        {"cuda": {"use_tf32": True, "cudnn_conv_algo_search": "DEFAULT"}},
        {"fraud": OwnExecutionSettings(("cuda",)), "tiny": OwnExecutionSettings(("cpu",))},
    )
    assert settings.load_settings("fraud").execution == settings.execution.of("fraud")
    assert settings.load_settings("fraud").max_rows == DEVICE_ROWS
    assert settings.load_settings("tiny").max_rows == THREADED_ROWS
    worker = WorkerSettings.from_json(settings.of_worker.to_json())
    assert worker.load_settings("fraud") == settings.load_settings("fraud"), "workers load as the airlock does"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[execution]\nproviders = []", "execution.providers is empty"),
        ("[execution]\nproviders = ['gpu']", "execution.providers has 'gpu'; expected some of tensorrt, cuda"),
        ("[execution]\nproviders = 'cuda'", "Expected `array`, got `str`"),
        ("[execution]\nprovider = ['cuda']", r"execution.provider; did you mean execution.providers\?"),
        (
            "[execution.models.m]\nproviders = ['cpu', 'cuda']",
            r"execution.models.m.providers is \['cpu', 'cuda'\], expected",
        ),
        ("[execution.models.m]\ndevices = 1", r"execution.models.m.devices; did you mean execution.models.m.device\?"),
        ("[execution.options.cuda]\nx = [1]", r"got `array` - at `\$.execution.options"),
    ],
)
def test_providers_that_make_no_sense_are_refused(file: Path, text: str, sentence: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidInputError, match=sentence):
        read_settings(file)


def test_a_model_may_be_watched_in_a_way_of_its_own() -> None:
    settings = DriftSettings(500, 12.0, models={"fraud": OwnDriftSettings(window_rows=2000, minimum_effect=0.3)})
    assert settings.rules_of("churn") == DriftRules(window_rows=500, window_s=43_200.0)
    assert settings.rules_of("fraud") == DriftRules(minimum_effect=0.3, window_rows=2000, window_s=43_200.0)
