import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench.peers import environments, run
from bench.peers.peer import PROTOCOLS
from bench.peers.run import PeerResult
from bench.scenarios import QUICK
from bench.servers.measured import BASELINE
from penstock_server.errors import UnavailableError
from tests.bench.peers.a_peer import PEER


def test_a_peer_sees_this_checkout_and_carries_the_mark() -> None:
    started = run.measured_server(PEER, Path("/run"), "mark")
    found = started.command(Path("/m"), {"tabular": Path("/m.onnx")})
    assert {"--chdir=/run", "HOME=/run", "TMPDIR=/run"} <= set(found)
    assert f"{run.MARK}=mark" in found
    assert any(each.startswith("PYTHONPATH=") and each.endswith("protos") for each in found)
    assert started.protocol is PROTOCOLS["json"]
    assert run.run_spec(PEER, QUICK).servers == ("other", "penstock", BASELINE)


@pytest.mark.parametrize(
    "error", [environments.InstallError("no wheel"), UnavailableError("it ended"), TimeoutError("late")]
)
def test_a_peer_that_fails_gives_a_result_with_the_reason(monkeypatch, error) -> None:
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(environments, "is_fresh", lambda _: True)
    monkeypatch.setattr(environments, "make", fail)
    assert run.measure(PEER, QUICK) == PeerResult(PEER, failure=str(error))


def test_what_carries_the_mark_is_found_and_ended() -> None:
    with run._marked() as mark:
        script = "import time; print(flush=True); time.sleep(600)"
        environment = {run.MARK: mark}
        with subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert [each.pid for each in run.survivors(mark)] == [process.pid]
            assert run.survivors("another") == []
            process.kill()
    with subprocess.Popen([sys.executable, "-c", script], env={run.MARK: mark}) as process:
        psutil.Process(process.pid).environ()
        process.kill()
    assert run.survivors(mark) == []
