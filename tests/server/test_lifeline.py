"""Real processes: a parent is killed, and its child, which hangs with the interpreter's lock held, must be gone."""

import os
import select
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from penstock_server import lifeline

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="parent-death signals are Linux's")

HANGING_CHILD = """
import ctypes, os, sys
from penstock_server import lifeline
getattr(lifeline, sys.argv[1])(int(sys.argv[2]))
os.write(1, b"ready")
nobody_writes, _ = os.pipe()
# Keeps the interpreter's lock, so no Python code of this process runs any more; the kernel restarts it after a signal.
ctypes.PyDLL(None).read(nobody_writes, ctypes.create_string_buffer(1), 1)
"""
PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1], str(os.getpid())])
print(child.pid, flush=True)
time.sleep(600)
"""


def seconds_until_gone(function: str) -> float:
    """Kills the parent of a hanging child that called the function; the time until the child is gone."""
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PARENT), function, textwrap.dedent(HANGING_CHILD)],
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    try:
        child = int(parent.stdout.readline())
        assert parent.stdout.read(5) == b"ready"
        descriptor = os.pidfd_open(child)
        started = time.monotonic()
        parent.kill()
        gone, _, _ = select.select([descriptor], [], [], 30)
        assert gone, "the child outlived its parent by 30 s"
        return time.monotonic() - started
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def test_a_child_that_hangs_ends_with_its_parent() -> None:
    assert seconds_until_gone("end_with_parent") < lifeline.GRACE_S


@pytest.mark.slow
def test_a_child_that_hangs_is_given_the_grace_and_then_ends_too() -> None:
    assert seconds_until_gone("end_after_parent") >= lifeline.GRACE_S - 1


def test_a_child_whose_parent_is_gone_already_ends_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from penstock_server import lifeline; lifeline.end_with_parent(1 << 22)"], check=False
    )
    assert done.returncode == -signal.SIGKILL


def test_a_process_whose_threads_wait_for_ever_ends_at_its_time() -> None:
    code = (
        "import threading; from penstock_server import lifeline\n"
        "with lifeline.LastResort() as last_resort:\n"
        "    last_resort.within(0.2)\n"
        "    threading.Event().wait()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 1


def test_a_process_that_is_done_sooner_goes_on() -> None:
    code = (
        "import time; from penstock_server import lifeline\n"
        "with lifeline.LastResort() as last_resort:\n"
        "    last_resort.within(0.2)\n"
        "time.sleep(0.5)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
