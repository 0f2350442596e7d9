import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from penstock_server.control.kernels import RETRY_S, KernelCompiler
from penstock_server.features.kernel_set import KERNELS
from penstock_server.kernels import compiled
from penstock_server.kernels.compiled import CompiledFile

TIMEOUT_S = 10.0
FOUND = (Path("kernels.bin"), CompiledFile("key", ()))


class Machine:
    """What is there, and a compiler that is a script of the test's."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.own: Any = None
        self.shipped: Any = None
        self.script = "print('compiled')"
        self.started = 0
        self.options: tuple[str, ...] = ()
        self.changed = asyncio.Event()
        self.kernels = KernelCompiler(KERNELS, self.changed.set, clock=clock)

    def build_command(self, _kernels: Any, _path: Path, *options: str) -> tuple[list[str], dict[str, str]]:
        self.started += 1
        self.options = options
        return [sys.executable, "-c", self.script], {}

    async def settled(self) -> None:
        self.kernels.require()
        await asyncio.wait_for(self.changed.wait(), TIMEOUT_S)
        self.changed.clear()


@pytest.fixture
async def machine(fake_clock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machine]:
    made = Machine(fake_clock())
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(compiled, "find_own", lambda _kernels: made.own)
    monkeypatch.setattr(compiled, "find_shipped", lambda _kernels: made.shipped)
    monkeypatch.setattr(compiled, "build_command", made.build_command)
    yield made
    await made.kernels.close()


async def test_kernels_that_nobody_waits_for_are_compiled_behind(machine: Machine) -> None:
    machine.kernels = KernelCompiler(KERNELS, machine.changed.set, clock=machine.clock, is_waited_for=False)
    machine.script = "raise MemoryError('no room')"
    with capture_logs() as logs:
        await machine.settled()
    assert "--behind" in machine.options
    assert [(entry["log_level"], entry["event"]) for entry in logs] == [
        ("info", "compiling the feature kernels of this machine; the next start uses them"),
        ("warning", "no feature kernels of this machine; what serves now goes on"),
    ]
    assert machine.kernels.failure == ""


async def test_nothing_is_compiled_until_it_is_required(machine: Machine) -> None:
    assert (machine.kernels.is_ready, machine.kernels.reason, machine.started) == (False, "", 0)


async def test_this_machine_s_own_kernels_are_used_at_once(machine: Machine) -> None:
    machine.own = FOUND
    machine.kernels.require()
    assert (machine.kernels.is_ready, machine.kernels.reason, machine.started) == (True, "", 0)


async def test_shipped_kernels_serve_while_the_machine_s_own_are_compiled(machine: Machine) -> None:
    machine.shipped = FOUND
    machine.kernels.require()
    assert (machine.kernels.is_ready, machine.kernels.reason) == (True, "")
    machine.own = FOUND
    await machine.settled()
    assert (machine.started, machine.options) == (1, ("--progress", "--behind"))


async def test_shipped_kernels_go_on_when_nothing_can_be_compiled(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compiled, "find_spec", lambda _: None)
    machine.shipped = FOUND
    machine.kernels.require()
    assert (machine.kernels.is_ready, machine.kernels.failure, machine.started) == (True, "", 0)
    assert capsys.readouterr().out == ""


async def test_without_any_versions_wait_for_the_compiler(machine: Machine) -> None:
    machine.kernels.require()
    assert not machine.kernels.is_ready
    assert machine.kernels.reason.startswith("the feature kernels are being compiled for this machine")
    machine.own = FOUND
    await machine.settled()
    assert (machine.kernels.is_ready, machine.kernels.reason, machine.options) == (True, "", ("--progress",))


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("raise MemoryError('no room')", "cannot be compiled: MemoryError: no room"),
        ("import os; os.kill(os.getpid(), 9)", "cannot be compiled: exit code -9"),
        ("", "were compiled, but .* does not hold them"),
    ],
)
async def test_a_failure_is_told_and_tried_again_later(machine: Machine, script: str, reason: str) -> None:
    machine.script = script
    await machine.settled()
    assert not machine.kernels.is_ready
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(machine.kernels.failure)
    assert machine.kernels.reason == machine.kernels.failure
    machine.kernels.require()
    assert machine.started == 1
    machine.clock.now += RETRY_S
    machine.own = FOUND
    machine.kernels.require()
    assert (machine.kernels.is_ready, machine.kernels.reason) == (True, "")


async def test_a_compiler_that_never_ends_is_ended(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "BUILD_TIMEOUT_S", 0.5)
    machine.script = "import time; time.sleep(60)"
    await machine.settled()
    assert machine.kernels.failure.endswith("it took longer than 0 s")


async def test_closing_ends_the_compiler(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    processes: list[asyncio.subprocess.Process] = []
    start = asyncio.create_subprocess_exec
    begun = asyncio.Event()

    async def starting(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        processes.append(await start(*arguments, **options))
        begun.set()
        return processes[-1]

    monkeypatch.setattr(asyncio, "create_subprocess_exec", starting)
    machine.script = "import time; time.sleep(60)"
    machine.kernels.require()
    await asyncio.wait_for(begun.wait(), TIMEOUT_S)
    await machine.kernels.close()
    assert processes[0].returncode == -9


async def test_progress_is_counted(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    lines = KERNELS.functions // 2
    machine.script = f"print('compiled\\n' * {lines}, end='')"
    machine.own = None
    await machine.settled()
    assert machine.kernels.progress == lines / KERNELS.functions
    assert capsys.readouterr().out.count("done=") == 2
