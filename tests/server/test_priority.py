import os
import subprocess
import sys

import pytest

from penstock_server import priority


@pytest.fixture
def process():
    started = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield started
    started.kill()
    started.wait()


def test_a_process_leaves_the_processor_to_its_server(process):
    own = os.getpriority(os.PRIO_PROCESS, 0)
    priority.to_background(process.pid)
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(19, own + priority.NICENESS)
    assert os.getpriority(os.PRIO_PROCESS, 0) == own


def test_of_a_process_that_is_gone_nothing_happens(process):
    process.kill()
    process.wait()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    priority.to_background(process.pid)
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
