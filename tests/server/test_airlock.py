import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock_server import airlock
from penstock_server.airlock import attempt
from penstock_server.compiled_models.kernel_set import KERNELS
from penstock_server.control.verdict import (
    OUT_OF_DEVICE_MEMORY,
    LoadSettings,
    Trial,
    TrialLimits,
    Verdict,
    out_of_memory,
)
from penstock_server.errors import InvalidInputError, ModelFailedError, UnavailableError
from penstock_server.kernels import compiled
from penstock_server.models.execution import ExecutionSettings
from penstock_server.python.settings import PythonSettings
from penstock_server.response_cache.settings import Caching
from tests.server.compiled_models.graphs import regressor

LIMITS = TrialLimits(1024, 10.0)
TRIAL = Trial("m", "1", "", "/none", LoadSettings())
ON_DEVICE = LoadSettings(
    2,
    8,
    "request",
    PythonSettings(allow=True),
    compiled_models=False,
    execution=ExecutionSettings(("cuda",)),
)


def failed_for(cause: BaseException) -> InvalidInputError:
    error = InvalidInputError("the model fails on its golden requests")
    error.__cause__ = ModelFailedError("the model failed on this input")
    error.__cause__.__cause__ = cause
    return error


def test_what_runs_the_graph_is_told_for_the_workers(tmp_path: Path) -> None:
    compiled.ensure_compiled(KERNELS)
    (tmp_path / "model.onnx").write_bytes(regressor())
    verdict = attempt(Trial("m", "1", "", str(tmp_path), LoadSettings()), LIMITS)
    assert verdict.has_passed
    assert verdict.engine is not None
    assert verdict.engine.proven_with == compiled.library(KERNELS).key
    assert verdict.is_timed
    assert 0 < verdict.batch_s(1) < 1
    assert verdict.memory_bytes > 0
    again = msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict)
    assert again.engine == verdict.engine


@pytest.mark.parametrize("wants", [True, False])
def test_answers_that_are_not_kept_are_told_where_they_are_wanted(write_onnx: Any, wants: bool) -> None:
    path = write_onnx(
        [("RandomNormalLike", ["x"], ["y"], {})], inputs=[("x", "FP32", ["N", 2])], outputs=[("y", "FP32", ["N", 2])]
    )
    how = LoadSettings(caching=Caching(True, wants))
    verdict = attempt(Trial("m", "1", "", str(path.parent), how), LIMITS)
    assert verdict.has_passed
    assert ("its answers are not kept in the response cache: its graph draws" in verdict.note) == wants


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidInputError("its digest is wrong"), "its digest is wrong"),
        (UnavailableError("no room"), "no room"),
        (RuntimeError("secret"), "loading failed: RuntimeError"),
        (MemoryError(), out_of_memory(LIMITS)),
        (RuntimeError("std::bad_alloc"), out_of_memory(LIMITS)),
        (failed_for(RuntimeError("Failed to allocate memory for requested buffer")), out_of_memory(LIMITS)),
        (failed_for(RuntimeError("shapes")), "the model fails on its golden requests"),
    ],
)
def test_the_reason_of_a_load_that_fails(monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str) -> None:
    def load(*_: object, **__: object) -> object:
        raise error

    monkeypatch.setattr(airlock, "load", load)
    assert attempt(TRIAL, LIMITS).reason == reason


def test_a_version_is_loaded_by_its_model_s_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, object]] = []

    def load(*_: object, **settings: object) -> object:
        given.append(settings)
        raise InvalidInputError("enough")

    monkeypatch.setattr(airlock, "load", load)
    attempt(TRIAL, LIMITS)
    attempt(
        Trial("m", "1", "", "/none", ON_DEVICE),
        LIMITS,
    )
    assert given == [
        {
            "threads": None,
            "max_rows": 256,
            "batching": None,
            "python": PythonSettings(),
            "compiled_models": True,
            "execution": ExecutionSettings(),
        },
        {
            "threads": 2,
            "max_rows": 8,
            "batching": "request",
            "python": PythonSettings(allow=True),
            "compiled_models": False,
            "execution": ExecutionSettings(("cuda",)),
        },
    ]


@pytest.mark.parametrize(
    "cause", [RuntimeError("CUDA failure 2: out of memory"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")]
)
def test_a_device_s_memory_is_not_taken_for_the_process_s(monkeypatch: pytest.MonkeyPatch, cause: Exception) -> None:
    def load(*_: object, **__: object) -> object:
        raise failed_for(cause)

    monkeypatch.setattr(airlock, "load", load)
    assert attempt(Trial("m", "1", "", "/none", ON_DEVICE), LIMITS).reason == OUT_OF_DEVICE_MEMORY
    assert attempt(TRIAL, LIMITS).reason == out_of_memory(LIMITS)


def test_a_trial_carries_its_providers_to_the_process() -> None:
    trial = Trial("m", "1", "", "/none", ON_DEVICE)
    assert msgspec.json.decode(msgspec.json.encode(trial), type=Trial) == trial


def test_with_a_device_addresses_are_not_limited() -> None:
    """Its driver reserves more of them than there is memory."""
    code = (
        "import resource; from penstock_server.airlock import limit; from penstock_server.control.verdict import TrialLimits\n"
        "before = resource.getrlimit(resource.RLIMIT_AS)\n"
        "limit(TrialLimits(512, 9.0), 1, has_device=True)\n"
        "print(before == resource.getrlimit(resource.RLIMIT_AS), resource.getrlimit(resource.RLIMIT_CPU))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True (19, 19)"


def test_the_limits_hold_in_the_process() -> None:
    code = (
        "import resource; from penstock_server.airlock import limit; from penstock_server.control.verdict import TrialLimits\n"
        "limit(TrialLimits(512, 9.0), 1)\n"
        "for kind in ('AS', 'CPU', 'NOFILE', 'CORE'): print(*resource.getrlimit(getattr(resource, f'RLIMIT_{kind}')))\n"
        "try: bytearray(600 << 20)\n"
        "except MemoryError: print('refused', open('/proc/self/oom_score_adj').read().strip())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    memory, processor, descriptors, core, refused = done.stdout.splitlines()
    assert 512 << 20 < int(memory.split()[0]) < 8 << 30
    assert (processor, descriptors, core, refused) == ("19 19", "256 256", "0 0", "refused 1000")
