"""NVIDIA's perf_analyzer against a real server: it runs as it does against Triton, and its server-side times are right."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tritonclient.grpc as triton

from bench import perf_analyzer
from bench.peers.environments import InstallError
from tests.integration.conftest import Server, starting

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,  # it makes an environment, and sends load for seconds
    pytest.mark.timeout(600),  # it may have to be downloaded
]
SLOW_S = 0.02


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    try:
        perf_analyzer.make()
    except InstallError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def server(
    environment: dict[str, str],
    logs: Path,
    tmp_path_factory: pytest.TempPathFactory,
    flag_model: bytes,
    strings_model: bytes,
    put_version: Callable[..., Path],
) -> Iterator[Server]:
    repository = tmp_path_factory.mktemp("repository")
    for name in ("flag", "delayed"):
        put_version(repository, name, "1", flag_model)
    put_version(repository, "strings", "3", strings_model)
    file = tmp_path_factory.mktemp("settings") / "penstock.toml"
    file.write_text(f"[batching.models.delayed]\nmax_delay_s = {SLOW_S}\nmax_rows = 64\n")
    with starting(environment, logs) as start:
        arguments = ("--model-repository", str(repository), "--config", str(file), "--workers", "2")
        yield start(*arguments).wait_ready()


@pytest.mark.parametrize(
    ("options", "rows"),
    [
        ((), 1),
        (("--async",), 1),
        (("-b", "4"), 4),
        (("--async", "--streaming"), 1),
    ],
)
def test_it_runs_and_counts_what_the_server_counts(server: Server, options: tuple[str, ...], rows: int) -> None:
    before = requests(server, "flag")
    found = perf_analyzer.measure(server.grpc, "flag", *options, window_s=0.5)
    assert found.requests > 50
    assert found.rows == rows * found.requests
    assert 0 < found.batches <= found.requests
    # It counts its last windows, the server also what was sent before and after them.
    assert found.requests <= requests(server, "flag") - before


def requests(server: Server, model: str) -> int:
    with triton.InferenceServerClient(server.grpc) as client:
        (one,) = client.get_inference_statistics(model).model_stats
        count: int = one.inference_stats.success.count
        return count


def test_its_parts_add_up_to_what_the_client_saw(server: Server) -> None:
    found = perf_analyzer.measure(server.grpc, "flag", window_s=0.5)
    assert found.queue_us > 0
    assert found.network_us + found.server_us == pytest.approx(found.latency_us, rel=0.2)


def test_time_is_told_where_it_is_spent(server: Server) -> None:
    """A request alone waits for others to fill its batch, and for nothing else."""
    found = perf_analyzer.measure(server.grpc, "delayed", concurrency=1, window_s=0.5)
    assert found.queue_us == pytest.approx(SLOW_S * 1e6, rel=0.5)
    assert found.queue_us > 0.5 * found.latency_us
    assert found.input_us + found.infer_us + found.output_us < 0.5 * found.queue_us


def test_texts_are_asked_for_too(server: Server) -> None:
    found = perf_analyzer.measure(server.grpc, "strings", "--string-length", "16", window_s=0.5)
    assert found.rows == found.requests > 50
