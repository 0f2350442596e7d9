"""Real trials in real processes: what a version does to a process is said in a sentence, and nothing is left of it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock_server.control.trial_process import TrialRunner, too_slow, verdict_of
from penstock_server.control.verdict import LoadSettings, Trial, TrialLimits, Verdict, out_of_memory

LIMITS = TrialLimits(1024, 60.0)
RUNNER = TrialRunner(LIMITS, has_spare=False)
TIMEOUT_S = 60.0


def trial(folder: Path) -> Trial:
    return Trial("m", "1", "", str(folder), LoadSettings())


@pytest.fixture(scope="module")
def sound(write_onnx: Callable[..., Path]) -> Path:
    path = write_onnx(
        [("Identity", ["x"], ["y"], {})], inputs=[("x", "FP32", ["N", 2])], outputs=[("y", "FP32", ["N", 2])]
    )
    return path.parent


@pytest.fixture(scope="module")
def hungry(write_onnx: Callable[..., Path]) -> Path:
    """Takes 8 GiB for its first run."""
    path = write_onnx(
        [("Expand", ["x", "shape"], ["large"], {}), ("ReduceSum", ["large"], ["y"], {"keepdims": 1})],
        inputs=[("x", "FP32", [1])], outputs=[("y", "FP32", [1])],
        constants={"shape": np.array([2**31], np.int64)},
    )  # fmt: skip
    return path.parent


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its run does not end within a year."""
    from onnx import TensorProto, helper, numpy_helper

    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["sum", "one"], ["next"]),
        ],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("sum", TensorProto.FLOAT, [1]),
        ],
        [value("go_on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["times", "yes", "x"], ["y"], body=body)],
        "graph",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
        [
            numpy_helper.from_array(np.array(2**62, np.int64), "times"),
            numpy_helper.from_array(np.array(True), "yes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder = tmp_path_factory.mktemp("endless")
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder


def children() -> set[int]:
    found = set()
    for thread in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has ended since
            found |= {int(pid) for pid in (thread / "children").read_text().split()}
    return found


async def one_child(former: set[int]) -> int:
    """The process that a trial has started."""
    while not (new := children() - former):  # noqa: ASYNC110 - the kernel has no event for it
        await asyncio.sleep(0.005)
    return new.pop()


async def waiting_one(runner: TrialRunner) -> asyncio.subprocess.Process:
    """The process that waits for the next trial."""
    assert runner._spare._starting is not None
    await asyncio.wait_for(runner._spare._starting, TIMEOUT_S)
    assert runner._spare.process is not None
    return runner._spare.process


async def tried(folder: Path, limits: TrialLimits = LIMITS) -> Verdict:
    before = children()
    verdict = await asyncio.wait_for(TrialRunner(limits, has_spare=False).run(trial(folder)), TIMEOUT_S)
    assert children() == before
    return verdict


async def test_a_sound_version_passes(sound: Path) -> None:
    verdict = await tried(sound)
    assert (verdict.has_passed, verdict.batching) == (True, "rows")
    assert verdict.took_s > 0


async def test_a_process_waits_for_the_next_version(sound: Path, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"this is no ONNX")
    before = children()
    runner = TrialRunner(LIMITS)
    assert (await asyncio.wait_for(runner.run(trial(sound)), TIMEOUT_S)).has_passed
    waiting = await waiting_one(runner)
    assert not (await asyncio.wait_for(runner.run(trial(tmp_path)), TIMEOUT_S)).has_passed
    assert waiting.returncode == 0  # it tried this one
    waiting = await waiting_one(runner)
    waiting.kill()  # as when the machine runs out of memory
    await waiting.wait()
    assert (await asyncio.wait_for(runner.run(trial(sound)), TIMEOUT_S)).has_passed
    waiting = await waiting_one(runner)
    await runner.close()
    await asyncio.wait_for(waiting.wait(), TIMEOUT_S)
    assert children() == before


async def test_a_version_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"this is no ONNX")
    assert "is not an ONNX model" in (await tried(tmp_path)).reason


async def test_a_version_that_asks_for_too_much_memory_is_stopped(hungry: Path) -> None:
    assert (await tried(hungry)).reason == (
        "used more than 1,024 MiB while it was loaded and was stopped (the limit is the setting airlock.memory_mib)"
    )


async def test_a_version_that_fills_too_much_memory_is_stopped(sound: Path) -> None:
    limits = TrialLimits(30, 60.0)  # the process itself takes more
    assert (await tried(sound, limits)).reason == out_of_memory(limits)


@pytest.mark.long
async def test_a_version_that_never_ends_is_stopped(endless: Path) -> None:
    started = time.monotonic()
    assert (await tried(endless, TrialLimits(1024, 2.0))).reason == (
        "did not finish loading within 2 s (the limit is the setting airlock.timeout_s)"
    )
    assert time.monotonic() - started < 4.0


async def test_a_version_that_crashes_the_process_is_told_by_its_signal(endless: Path) -> None:
    before = children()
    running = asyncio.create_task(RUNNER.run(trial(endless)))
    os.kill(await asyncio.wait_for(one_child(before), TIMEOUT_S), signal.SIGSEGV)
    verdict = await asyncio.wait_for(running, TIMEOUT_S)
    assert verdict.reason == "ended the process that tried it (signal 11, SIGSEGV)"
    assert children() == before


async def test_a_trial_that_is_cancelled_leaves_no_process(endless: Path) -> None:
    before = children()
    running = asyncio.create_task(RUNNER.run(trial(endless)))
    await asyncio.wait_for(one_child(before), TIMEOUT_S)
    running.cancel()
    await asyncio.wait({running}, timeout=TIMEOUT_S)
    assert running.cancelled()
    assert children() == before


async def test_a_process_that_cannot_be_started_is_an_error(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock_server.control.trial_process.sys.executable", str(tmp_path / "none"))
    with pytest.raises(FileNotFoundError):
        await RUNNER.run(trial(sound))


@pytest.mark.parametrize(
    ("answer", "code", "reason"),
    [
        (b'{"batching": "rows"}', 0, ""),
        (b'{"reason": "no"}', 0, "no"),
        (b"", 0, "ended the process that tried it (exit code 0)"),
        (b'{"batching": "rows"}', 1, "ended the process that tried it (exit code 1)"),
        (b"", -6, "ended the process that tried it (signal 6, SIGABRT)"),
        (b"", -int(signal.SIGXCPU), too_slow(LIMITS)),
        (
            b"", -9,
            "the process that tried it was killed (signal 9), which the system does when the machine runs out of memory",
        ),
    ],
)  # fmt: skip
def test_what_a_process_says_counts_only_if_it_ended_well(answer: bytes, code: int, reason: str) -> None:
    assert verdict_of(answer, code, LIMITS).reason == reason


def test_the_process_imports_neither_grpc_nor_mlflow() -> None:
    slow = ("grpc", "mlflow", "pyarrow", "numba", "llvmlite", "aiohttp", "yaml")
    code = f"import penstock_server.airlock, sys; print([m for m in {slow} if m in sys.modules])"
    found: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
