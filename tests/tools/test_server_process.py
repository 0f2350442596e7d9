import os
import signal
import sys

import pytest

from penstock_server.errors import UnavailableError
from penstock_tools import server_process as server
from penstock_tools.demo.plan import Plan

READY = "print('noise'); print('penstock is ready: grpc 127.0.0.1:1  http 127.0.0.1:2', flush=True);"
WAITS = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit({code}));" + READY + "signal.pause()"


def python(code):
    return [sys.executable, "-c", code]


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("code", [0, 3])
async def test_a_server_is_ready_when_it_says_so_and_its_exit_code_is_told(tmp_path, code):
    async with server.running(python(WAITS.format(code=code)), environment={}, log=tmp_path / "log") as process:
        assert process.addresses == server.Addresses("127.0.0.1:1", "127.0.0.1:2")
        assert await process.stop() == code
        assert await process.stop() == code


async def test_a_server_is_ended_when_the_demo_fails(tmp_path):
    pid = 0

    async def fail():
        nonlocal pid
        code = f"import os; print(os.getpid(), file=open({str(tmp_path / 'pid')!r}, 'w'), flush=True);" + WAITS.format(
            code=0
        )
        async with server.running(python(code), environment={}, log=tmp_path / "log"):
            pid = int((tmp_path / "pid").read_text())
            assert is_running(pid)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert not is_running(pid)


async def test_a_server_that_ends_early_is_told_and_its_log_is_kept(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(UnavailableError, match="ended with exit code 7 before it was ready"):
        async with server.running(
            python("import sys; print('why', file=sys.stderr); sys.exit(7)"), environment={}, log=log
        ):
            pass
    assert server.tail(log) == "why\n"


async def test_a_server_that_is_silent_is_given_up(tmp_path):
    with pytest.raises(UnavailableError, match=r"not ready within 0\.2 seconds"):
        async with server.running(
            python("import signal; signal.pause()"), environment={}, log=tmp_path / "log", timeout_s=0.2
        ):
            pass


async def test_a_server_that_ignores_sigterm_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "STOP_TIMEOUT_S", 0.2)
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + READY + "\nwhile True: signal.pause()"
    async with server.running(python(code), environment={}, log=tmp_path / "log") as process:
        assert await process.stop() == -signal.SIGKILL


async def test_variables_reach_the_server(tmp_path):
    code = "import os, sys; sys.exit(int(os.environ['PENSTOCK_TEST']))"
    with pytest.raises(UnavailableError, match="exit code 5"):
        async with server.running(python(code), environment={"PENSTOCK_TEST": "5"}, log=tmp_path / "log"):
            pass


def test_the_command_line(tmp_path):
    line = server.command(Plan(workers=3, port=4567), registry="sqlite:///r.db", config=tmp_path / "c.toml")
    assert line[:4] == [sys.executable, "-m", "penstock_tools.cli.main", "serve"]
    options = dict(zip(line[4::2], line[5::2], strict=True))
    assert options == {
        "--registry": "sqlite:///r.db",
        "--config": str(tmp_path / "c.toml"),
        "--port": "4567",
        "--http-port": "0",
        "--workers": "3",
    }


def test_a_log_that_is_not_there_has_no_tail(tmp_path):
    assert server.tail(tmp_path / "none") == ""


def test_a_log_is_cut_to_its_end(tmp_path):
    (tmp_path / "log").write_bytes(b"\xff\n" + b"".join(b"%d\n" % at for at in range(50)))
    assert server.tail(tmp_path / "log", 2) == "48\n49\n"


def test_a_page_that_is_not_served_is_unavailable():
    with pytest.raises(UnavailableError, match="does not answer"):
        server.fetch("http://127.0.0.1:9/metrics")


def test_a_long_line_is_cut(tmp_path):
    (tmp_path / "log").write_text("x" * 5000 + "\n")
    assert server.tail(tmp_path / "log") == "x" * 1000 + " ...\n"
