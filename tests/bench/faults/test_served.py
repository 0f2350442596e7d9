import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from bench.faults.served import ServerState, command_of, happens, log_of, tracebacks, wait_for

PAGES = {
    "/v1/models": json.dumps(
        {
            "models": [
                {"name": "m", "version": "1", "state": "READY"},
                {"name": "m", "version": "2", "state": "UNAVAILABLE"},
            ],
            "workers": [{"pid": 1, "restarts": 2}, {"pid": 2, "restarts": 1}],
        }
    ),
    "/metrics": '# TYPE a gauge\na{x="1"} 3\na{x="2"} -1\n# TYPE b gauge\nb 5\n',
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path in PAGES else 404)
        self.end_headers()
        self.wfile.write(PAGES.get(self.path, "").encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def state() -> Iterator[ServerState]:
    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield ServerState(f"127.0.0.1:{server.server_port}", 1)
        server.shutdown()


def test_the_state_is_read_from_the_pages(state) -> None:
    assert state.are_ready({"m"})
    assert not state.are_ready({"m", "other"})
    assert state.version("m", "2") == {"name": "m", "version": "2", "state": "UNAVAILABLE"}
    assert state.version("m", "3") is None
    assert state.restarts() == 3
    assert state.samples("a") == {("a", (("x", "1"),)): 3.0, ("a", (("x", "2"),)): -1.0}
    with pytest.raises(OSError, match="404"):
        state.get("/nothing")


def test_waiting_ends_with_the_first_true_value_or_the_time() -> None:
    answers = iter([0, None, 7])
    assert wait_for(lambda: next(answers), "seven", timeout_s=5) == 7
    with pytest.raises(TimeoutError, match=r"not within 0 s: it"):
        wait_for(lambda: False, "it", timeout_s=0)
    assert happens(lambda: False, within_s=0) is None
    assert happens(lambda: True, within_s=0) is not None


def test_a_server_away_is_not_yet_true() -> None:
    def refuse() -> bool:
        raise ConnectionRefusedError

    assert happens(refuse, within_s=0) is None


def test_a_server_has_its_files_in_its_folder(tmp_path) -> None:
    command, env = command_of(tmp_path / "s", "--workers", "2", settings="workers = 3\n", has_kernels=False)
    assert command[-2:] == ["--workers", "2"]
    assert (tmp_path / "s" / "penstock.toml").read_text() == "workers = 3\n"
    assert env["PENSTOCK_CACHE_DIR"].startswith(str(tmp_path))
    assert list((tmp_path / "s" / "cache").iterdir()) == []


def test_tracebacks_are_counted(tmp_path) -> None:
    assert tracebacks(tmp_path) == 0
    log_of(tmp_path).write_text("Traceback (most recent call last)\n" * 2)
    assert tracebacks(tmp_path) == 2
