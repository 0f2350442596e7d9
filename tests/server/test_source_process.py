"""A source's process, in this process and as one of its own."""

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock_server import frames, leases
from penstock_server.errors import InvalidInputError
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.source_process import SourceServer, serve
from penstock_server.sources import messages
from penstock_server.sources.source import Desired, VersionFiles

TIMEOUT_S = 30.0


class Puppet:
    name = "the source"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.error: BaseException | None = None

    def poll(self) -> Desired:
        if self.error is not None:
            raise self.error
        return Desired({"m": TrafficPlan("1")})

    def get(self, model: str, version: str, identity: str) -> VersionFiles:
        return VersionFiles(self.folder, identity, leases.take(self.folder))


def opening(folder: Path) -> messages.Open:
    return messages.Open(messages.Directory(str(folder)), str(folder), 1.0, 10, 1.0, 0)


@pytest.fixture
def server(tmp_path: Path) -> SourceServer:
    made = SourceServer(opening(tmp_path))
    made._source = Puppet(tmp_path)  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (InvalidInputError("wrong"), messages.Failed("InvalidInputError", "wrong")),
        (RuntimeError("a secret"), messages.Failed("UnavailableError", "the source failed: RuntimeError")),
        (MemoryError(), messages.Failed("UnavailableError", "the source needs more than 2,147,483,648 bytes")),
    ],
)
def test_every_failure_is_an_answer(error: Exception, answer: messages.Failed, server: Any) -> None:
    assert server.answer(messages.Poll()) == messages.Polled(Desired({"m": TrafficPlan("1")}))
    server._source.error = error
    assert server.answer(messages.Poll()) == answer


def test_files_are_leased_until_the_next_message(server: SourceServer, tmp_path: Path) -> None:
    assert server.answer(messages.Fetch("m", "1", "id")) == messages.Fetched(str(tmp_path), "id")
    with leases.for_deleting(tmp_path) as is_free:
        assert not is_free
    assert server.answer(messages.Sweep()) is None
    with leases.for_deleting(tmp_path) as is_free:
        assert is_free


def test_it_answers_one_message_after_the_other_until_the_end(tmp_path: Path) -> None:
    (tmp_path / "m" / "1").mkdir(parents=True)
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(b"x")
    ours, theirs = socket.socketpair()
    thread = threading.Thread(target=serve, args=(theirs,))
    thread.start()
    with ours, ours.makefile("rb") as file:
        for request in (messages.Poll(), opening(tmp_path), messages.Poll(), messages.Poll()):
            ours.sendall(frames.framed(messages.encode(request)))
        for _ in range(2):  # the first came before it was said of which source
            answer = messages.answer(frames.receive(file) or b"")
            assert isinstance(answer, messages.Polled)
            assert answer.desired.models == {"m": TrafficPlan("1")}
        ours.shutdown(socket.SHUT_WR)
        assert frames.receive(file) is None
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()


def test_it_imports_little() -> None:
    code = (
        "import sys, penstock_server.source_process; "
        "sys.exit(', '.join({'mlflow', 'numpy', 'asyncio', 'structlog', 'yaml', 'grpc'} & sys.modules.keys()) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, capture_output=True).stderr == b""


def test_it_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """Also while it hangs: the parent is killed, and the process of its own with it."""
    hang = tmp_path / "hang.py"
    hang.write_text(
        "import os, subprocess, sys\n"
        "read, write = os.pipe()\n"
        "code = 'import sys, signal; from penstock_server import source_process, lifeline; "
        "lifeline.end_with_parent(int(sys.argv[1])); print(1, flush=True); signal.pause()'\n"
        "child = subprocess.Popen([sys.executable, '-c', code, str(os.getpid())], stdout=write)\n"
        "os.read(read, 1)\n"
        "print(child.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, str(hang)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        watch = os.pidfd_open(pid)
        parent.send_signal(signal.SIGKILL)
        import select

        assert select.select([watch], [], [], TIMEOUT_S)[0]
        os.close(watch)


def test_libraries_say_nothing_on_standard_output(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock_server.source_process", str(theirs.fileno()), str(os.getpid())],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
        )
        theirs.close()
        ours.sendall(frames.framed(messages.encode(opening(tmp_path))))
        ours.sendall(frames.framed(messages.encode(messages.Poll())))
        with ours.makefile("rb") as file:
            assert messages.answer(frames.receive(file) or b"") == messages.Polled(Desired())
        ours.shutdown(socket.SHUT_WR)
        assert process.communicate(timeout=TIMEOUT_S) == (b"", None)
        assert process.returncode == 0


def test_messages_survive_the_way() -> None:
    for request in (
        messages.Open(messages.Registry("http://h", ("a",)), "/c", 1.0, 2, 3.0, 4),
        messages.Poll(),
        messages.Fetch("m", "1", "id"),
        messages.Sweep(),
    ):
        assert messages.request(messages.encode(request)) == request
    for answer in (
        messages.Polled(Desired({"m": TrafficPlan("1")})),
        messages.Fetched("/f", "id"),
        messages.Failed("K", "r"),
    ):
        assert messages.answer(messages.encode(answer)) == answer
    with pytest.raises(msgspec.DecodeError):
        messages.answer(b"\xc1")
