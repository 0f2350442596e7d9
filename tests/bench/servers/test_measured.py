import sys
from pathlib import Path

import psutil
import pytest

from bench.protocols import JSON
from bench.servers.measured import BASELINE, ROOT, SERVERS, running
from penstock_server.errors import UnavailableError

SERVE = (
    "import os, signal; print('grpc 127.0.0.1:1234 http', os.getcwd(), flush=True); signal.sigwait({signal.SIGTERM})"
)


def test_a_server_runs_in_the_checkout_and_ends_with_the_context() -> None:
    with running([sys.executable, "-c", SERVE]) as server:
        assert server.grpc == "127.0.0.1:1234"
        assert server.last_lines.endswith(str(ROOT))
    assert not psutil.pid_exists(server.pid)


def test_a_server_that_does_not_start_is_named_by_its_command() -> None:
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with (
        pytest.raises(UnavailableError, match=r"(?s)-c raise SystemExit.* before it was ready.*no such model"),
        running(command),
    ):
        pass


def test_the_address_of_the_servers_protocol_is_awaited() -> None:
    command = [sys.executable, "-c", "print('grpc 127.0.0.1:1', flush=True)"]
    with pytest.raises(UnavailableError, match="before it was ready"), running(command, protocol=JSON):
        pass


def test_servers_are_given_the_models() -> None:
    files = {"tabular": Path("/m/tabular/1/model.onnx")}
    baseline = SERVERS[BASELINE].command(Path("/m"), files)
    penstock = SERVERS["penstock"].command(Path("/m"), files)
    assert "tabular=/m/tabular/1/model.onnx" in baseline
    assert penstock[1:4] == ["serve", "--model-repository", "/m"]
    assert SERVERS["penstock-aio"].command(Path("/m"), files)[-2:] == ["--transport", "aio"]
