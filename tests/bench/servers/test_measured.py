import sys
from pathlib import Path

import psutil
import pytest

from bench.servers.measured import BASELINE, CONTESTANTS, ServerError, ServerProcess, addresses

READY = "print('grpc 127.0.0.1:1234 http 127.0.0.1:5678', flush=True)\n"
CHILD = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
FOREVER = "import signal; signal.sigwait({signal.SIGTERM})\n"


def start(script: str, **settings) -> ServerProcess:
    return ServerProcess([sys.executable, "-c", script], **settings)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("grpc 127.0.0.1:50051", {"grpc": "127.0.0.1:50051"}),
        ("penstock is ready: grpc 127.0.0.1:1  http 127.0.0.1:2\n", {"grpc": "127.0.0.1:1", "http": "127.0.0.1:2"}),
        ("\x1b[1mgrpc\x1b[0m 127.0.0.1:7", {"grpc": "127.0.0.1:7"}),
        ("http [::1]:80", {"http": "[::1]:80"}),
        ("loading grpc models", {}),
        ("grpcio 127.0.0.1:7", {}),
        ("", {}),
    ],
)
def test_addresses_are_found_in_a_line(line, expected) -> None:
    assert addresses(line) == expected


def test_a_server_is_ready_when_it_names_its_address() -> None:
    with start("print('starting', flush=True)\n" + READY + FOREVER) as server:
        assert (server.grpc, server.http) == ("127.0.0.1:1234", "127.0.0.1:5678")
        assert server.ready_s > 0
        assert psutil.pid_exists(server.pid)
    assert not psutil.pid_exists(server.pid)


def test_its_workers_end_with_it() -> None:
    """The worker holds the server's output open: that it was read to its end says that the worker is gone."""
    with start(CHILD + READY + FOREVER) as server:
        assert len(psutil.Process(server.pid).children()) == 1
    assert not server._reader.is_alive()


def test_output_beyond_a_pipes_size_does_not_stop_it() -> None:
    with start(READY + "print('x' * 10**6, flush=True)\nprint('done', flush=True)\n") as server:
        psutil.Process(server.pid).wait(30)
    assert server.last_lines.endswith("done")
    assert len(server.last_lines) < 10**4


def test_a_server_that_ends_at_once_is_quoted() -> None:
    with pytest.raises(ServerError, match=r"(?s)named no gRPC address before it ended.*no such model"):
        start("raise SystemExit('no such model')")


def test_a_server_that_never_says_is_ended() -> None:
    with pytest.raises(ServerError, match=r"within 0\.3 s; it said:\nnothing"):
        start(FOREVER, timeout_s=0.3)


def test_a_command_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(ServerError, match="cannot be started"):
        ServerProcess(["/nowhere/penstock"])


def test_contestants_are_given_the_models() -> None:
    files = {"tabular": Path("/m/tabular/1/model.onnx")}
    baseline = CONTESTANTS[BASELINE].command(Path("/m"), files)
    penstock = CONTESTANTS["penstock"].command(Path("/m"), files)
    assert "tabular=/m/tabular/1/model.onnx" in baseline
    assert penstock[1:4] == ["serve", "--model-repository", "/m"]
    assert CONTESTANTS["penstock-aio"].command(Path("/m"), files)[-2:] == ["--transport", "aio"]
