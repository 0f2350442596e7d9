import os
import signal
import sys

import pytest

from penstock_server.errors import UnavailableError
from penstock_tools.server_process import ServerProcess, addresses, tail

READY = "print('noise'); print('penstock is ready: grpc 127.0.0.1:1  http 127.0.0.1:2', flush=True);"
WAITS = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit({code}));" + READY + "signal.pause()"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + READY + "\nwhile True: signal.pause()"
CHILD = (
    "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']);"
    "print('child', child.pid);"
)


def start(code, **settings):
    return ServerProcess([sys.executable, "-c", code], **settings)


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


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
def test_addresses_are_found_in_a_line(line, expected):
    assert addresses(line) == expected


@pytest.mark.parametrize("code", [0, 3])
def test_it_is_ready_when_it_prints_its_addresses_and_stops_with_its_exit_code(code):
    with start(WAITS.format(code=code)) as server:
        assert server.wait_ready() is server
        assert (server.grpc, server.http) == ("127.0.0.1:1", "127.0.0.1:2")
        assert server.ready_s > 0
        assert server.returncode is None
        assert server.stop() == code
        assert server.stop() == code
    assert server.returncode == code


def test_the_awaited_protocol_counts():
    with start("print('http 127.0.0.1:2', flush=True); import signal; signal.pause()") as server:
        server.wait_ready(protocol="http")
        assert server.http == "127.0.0.1:2"
        with pytest.raises(UnavailableError, match=r"was not ready within 0\.1 s"):
            server.wait_ready(0.1)


def test_leaving_the_context_stops_it_and_its_workers():
    def fail():
        nonlocal pids
        with start(CHILD + WAITS.format(code=0)) as server:
            server.wait_ready()
            pids = [server.pid, int(server.last_lines.split()[1])]
            assert all(map(is_running, pids))
            raise ZeroDivisionError

    pids = []
    with pytest.raises(ZeroDivisionError):
        fail()
    assert not is_running(pids[0])
    # The child has no parent that reaps it; that its pipe is closed says that it is gone, else leaving would wait.
    assert len(pids) == 2


def test_one_that_ends_early_is_quoted():
    with pytest.raises(
        UnavailableError, match="ended with exit code 7 before it was ready; its output ends with:\nwhy"
    ):
        start("import sys; print('why', file=sys.stderr); sys.exit(7)").wait_ready()


def test_standard_error_can_go_to_a_file(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(UnavailableError, match=r"ended with exit code 7 before it was ready$"):
        start("import sys; print('why', file=sys.stderr); sys.exit(7)", log=log).wait_ready()
    assert tail(log) == "why\n"


def test_one_that_is_silent_is_stopped():
    server = start("import signal; signal.pause()")
    with pytest.raises(UnavailableError, match=r"was not ready within 0\.2 s; its output ends with:\nnothing"):
        server.wait_ready(0.2)
    assert server.returncode == -signal.SIGTERM


def test_one_that_ignores_sigterm_is_killed():
    with start(DEAF, stop_timeout_s=0.2) as server:
        assert server.wait_ready().stop() == -signal.SIGKILL


def test_waiting_for_its_own_end():
    with start("print('done'); raise SystemExit(4)") as server:
        assert server.wait(30) == 4
        assert server.last_lines == "done"
    with start(DEAF, stop_timeout_s=0.0) as server, pytest.raises(UnavailableError, match=r"still runs after 0\.05 s"):
        server.wait_ready().wait(0.05)


def test_output_beyond_a_pipes_size_does_not_stop_it():
    with start(READY + "print('x' * 10**6, flush=True)\nprint('done', flush=True)\n") as server:
        assert server.wait(30) == 0
        assert server.last_lines.endswith("\ndone")
        assert len(server.last_lines) < 10**4


def test_variables_and_directory_reach_it(tmp_path):
    code = "import os, sys; sys.exit(int(os.environ['PENSTOCK_TEST']) + (os.getcwd() != sys.argv[1]))"
    with ServerProcess([sys.executable, "-c", code, str(tmp_path)], env={"PENSTOCK_TEST": "5"}, cwd=tmp_path) as server:
        assert server.wait(30) == 5


def test_a_command_that_is_not_there_is_unavailable():
    with pytest.raises(UnavailableError, match=r"/nowhere/penstock cannot be started: .*No such file"):
        ServerProcess(["/nowhere/penstock"])


def test_a_log_that_is_not_there_has_no_tail(tmp_path):
    assert tail(tmp_path / "none") == ""


def test_a_log_is_cut_to_its_end(tmp_path):
    (tmp_path / "log").write_bytes(b"\xff\n" + b"".join(b"%d\n" % at for at in range(50)))
    assert tail(tmp_path / "log", 2) == "48\n49\n"


def test_a_long_line_is_cut(tmp_path):
    (tmp_path / "log").write_text("x" * 5000 + "\n")
    assert tail(tmp_path / "log") == "x" * 1000 + " ...\n"
