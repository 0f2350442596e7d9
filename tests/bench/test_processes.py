import os
import subprocess
import sys

import psutil
import pytest

from bench import processes

BUSY = "import time\nwhile time.process_time() < 0.15: pass\n"


@pytest.mark.parametrize("command", ["python", "a b", "odd) (name", ""])
def test_a_stat_line_is_read_with_any_command_name(command) -> None:
    text = f"12 ({command}) S 7 " + " ".join(map(str, range(5, 53)))
    name, numbers = processes.parse_stat(text)
    assert name == command
    assert (numbers[1], numbers[11], numbers[12], numbers[21]) == (7, 14, 15, 24)


def test_cpu_of_this_process_is_what_the_system_says() -> None:
    mine = psutil.Process()
    expected = sum(sum(each.cpu_times()[:4]) for each in (mine, *mine.children(recursive=True)))
    assert processes.cpu_reader(os.getpid())() == pytest.approx(expected, abs=0.2)


def test_children_count_alive_and_after_their_end() -> None:
    before = processes.cpu_reader(os.getpid())()
    with subprocess.Popen([sys.executable, "-c", BUSY + "print(flush=True); input()"], **_pipes()) as child:
        child.stdout.readline()
        assert child.pid in processes.tree(os.getpid())
        assert processes.cpu_reader(child.pid)() >= 0.13
        alive = processes.cpu_reader(os.getpid())()
        child.communicate(b"\n")
    assert alive - before >= 0.13
    assert processes.cpu_reader(os.getpid())() >= alive
    assert child.pid not in processes.tree(os.getpid())


def test_memory_is_that_of_each_process_the_first_first() -> None:
    with subprocess.Popen([sys.executable, "-c", "print(flush=True); input()"], **_pipes()) as child:
        child.stdout.readline()
        mine, *others = processes.memory_of(os.getpid())
        assert mine.pid == os.getpid()
        assert mine.rss_bytes > 2**20
        assert mine.pss_bytes is None or 0 < mine.pss_bytes <= mine.rss_bytes * 1.2
        assert child.pid in [each.pid for each in others]
        child.communicate(b"\n")


def test_a_process_that_is_gone_has_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pass
    assert processes.tree(child.pid) == []
    assert processes.cpu_reader(child.pid)() == 0
    assert processes.memory_of(child.pid) == []


def _pipes() -> dict[str, int]:
    return {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
