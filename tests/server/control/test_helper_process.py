import asyncio
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from penstock_server.control import helper_process
from penstock_server.control.helper_process import HelperProcess

TIMEOUT_S = 30.0


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A helper that does with its argument, a file, what the file says."""
    (tmp_path / "helped.py").write_text(
        "import pathlib, sys\n"
        "file = pathlib.Path(sys.argv[1])\n"
        "starts = file.with_name('starts')\n"
        "starts.write_text(starts.read_text() + 'x' if starts.exists() else 'x')\n"
        "if file.read_text() == 'obey' or len(starts.read_text()) > 2:\n"
        "    sys.stdin.read()\n"
        "    file.write_text('ended')\n"
        "elif file.read_text() == 'stay':\n"
        "    import time\n"
        "    time.sleep(600)\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{':'.join(path for path in sys.path if path)}")
    return "helped"


async def until(file: Path, text: str) -> None:
    """Waits until another process has written this; its file can only be looked at again and again."""

    def look() -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not (file.exists() and file.read_text() == text):
            assert time.monotonic() < deadline, f"{file.name} did not become {text!r}"
            threading.Event().wait(0.01)

    await asyncio.to_thread(look)


async def test_it_ends_when_it_is_closed(module: str, tmp_path: Path) -> None:
    file = tmp_path / "what"
    file.write_text("obey")
    helper = HelperProcess(module, str(file))
    helper.start()
    await until(tmp_path / "starts", "x")
    await helper.close()
    assert file.read_text() == "ended"
    assert (tmp_path / "starts").read_text() == "x"


async def test_a_helper_that_cannot_be_started_is_started_later(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "what"
    file.write_text("obey")
    helper = HelperProcess(module, str(file), restart_after_s=0.0)
    make, failures = helper._start_process, [OSError(24, "Too many open files"), OSError(12, "Cannot allocate memory")]

    async def refuse() -> asyncio.subprocess.Process:
        if failures:
            raise failures.pop()
        return await make()

    monkeypatch.setattr(helper, "_start_process", refuse)
    helper.start()
    await until(tmp_path / "starts", "x")
    assert failures == []
    await helper.close()
    assert file.read_text() == "ended"


async def test_it_is_started_again(module: str, tmp_path: Path) -> None:
    file = tmp_path / "what"
    file.write_text("end at once")
    helper = HelperProcess(module, str(file), restart_after_s=0.0)
    helper.start()
    await until(tmp_path / "starts", "xxx")
    await helper.close()
    assert file.read_text() == "ended"


async def test_one_that_does_not_end_is_killed(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper_process, "GRACE_S", 0.05)
    file = tmp_path / "what"
    file.write_text("stay")
    helper = HelperProcess(module, str(file))
    helper.start()
    await until(tmp_path / "starts", "x")
    await asyncio.wait_for(helper.close(), TIMEOUT_S)
    assert helper._process is not None
    assert helper._process.returncode == -signal.SIGKILL


async def test_closed_before_it_was_started() -> None:
    helper = HelperProcess("nothing", "")
    await helper.close()
    assert helper._process is None
