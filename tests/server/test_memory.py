"""Real memory in a process of its own: how much glibc keeps depends on what the process did before."""

import subprocess
import sys

import pytest

PROGRAM = """
import threading
from penstock_server import memory

def burst():
    taken = [bytes(50_000) for _ in range(2_000)]  # 100 MB, in pieces below the size that glibc maps by itself
    return taken[::40]  # pieces in use among the freed ones

before = memory.resident_bytes()
returned = threading.Event()
give_back = memory.return_memory

def noted():
    give_back()
    returned.set()

memory.return_memory = noted
keeper = memory.MemoryReturn(look_s=0.05)
keeper.start()
kept = burst()
kept_by_glibc = memory.resident_bytes()
assert returned.wait(20), "an idle process gives memory back"
keeper.close()
print(before, kept_by_glibc, memory.resident_bytes())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's")
def test_an_idle_process_gives_back_what_a_burst_took() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    before, kept, after = map(int, done.stdout.split())
    assert kept - before > 50e6
    assert after - before < 0.2 * (kept - before)
