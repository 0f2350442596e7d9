import os
import subprocess
import sys
from pathlib import Path

import pytest

from penstock_server import priority


@pytest.fixture(params=[True, False])
def process(request):
    started = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=request.param
    )
    yield started
    started.kill()
    started.wait()


def test_a_process_leaves_the_processor_to_its_server(process):
    own = os.getpriority(os.PRIO_PROCESS, 0)
    priority.to_background(process.pid)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(19, own + priority.NICENESS)
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


def test_so_does_its_session_if_it_has_one_of_its_own(process):
    group, own_group = Path(f"/proc/{process.pid}/autogroup"), Path("/proc/self/autogroup")
    if not group.exists():
        pytest.skip("this system shares the processor among processes, not sessions")
    own = own_group.read_text()
    priority.to_background(process.pid)
    assert own_group.read_text() == own
    if os.getsid(process.pid) == process.pid:
        assert group.read_text().endswith(f" nice {os.getpriority(os.PRIO_PROCESS, process.pid)}\n")


def test_of_a_process_that_is_gone_nothing_happens(process):
    process.kill()
    process.wait()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    priority.to_background(process.pid)
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
