"""Real processes: what a pipeline does to its own, and what that costs its worker."""

import os
import signal
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from penstock_server import paths
from penstock_server.errors import InvalidInputError, ModelFailedError, NotReadyError, RefusedByModelError
from penstock_server.python import sandbox as sandboxes
from penstock_server.python.messages import Answered, Array
from penstock_server.python.sandbox import Sandbox
from penstock_server.python.settings import PythonSettings
from tests.server.python import conftest as marked

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SETTINGS = PythonSettings(allow=True, memory_mib=512, run_limit_s=30.0, start_limit_s=120.0)


@pytest.fixture(scope="module", autouse=True)
def _without_scikit_learn(tmp_path_factory):
    """Two dozen processes start here, whose pipeline needs none: importing it takes longer than all the rest."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "sklearn.py").touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH")))))
        yield


@pytest.fixture
def opened(tmp_path, monkeypatch, content):
    """Starts sandboxes, and closes them."""
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PASSWORD", "secret")
    every = []

    def start(settings=SETTINGS, content=content):
        found = Sandbox(("m", "1"), marked.described(), lambda: content, settings)
        found.ends = []
        found.on_end = found.ends.append
        every.append(found)
        return found

    yield start
    for each in every:
        each.close()


@pytest.fixture(scope="module")
def shared(content, tmp_path_factory):
    """A sandbox that outlives the faults of its pipeline, with its cache: a process takes seconds to start."""
    cache = tmp_path_factory.mktemp("cache")
    sandbox = Sandbox(("m", "1"), marked.described(), lambda: content, SETTINGS)
    sandbox.ends = []
    sandbox.on_end = sandbox.ends.append
    yield sandbox, cache
    sandbox.close()


@pytest.fixture
def running(shared, monkeypatch):
    """The shared sandbox with a process that is ready."""
    sandbox, cache = shared
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", str(cache))
    sandbox.start()
    assert answer(sandbox, 1) == [2]
    sandbox.ends.clear()
    return sandbox


def answer(sandbox, *numbers):
    return sandbox.run(marked.blocks_of(*numbers), len(numbers))[0].ravel().tolist()


def test_a_process_answers_and_ends_with_its_folder(opened):
    sandbox = opened()
    sandbox.start()
    assert answer(sandbox, 1, 2, 3) == [2, 3, 4]
    pid = sandbox.pid
    assert len(list((paths.cache_dir() / "python").iterdir())) == 1
    sandbox.close()
    assert list((paths.cache_dir() / "python").iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(NotReadyError, match="is being unloaded"):
        answer(sandbox, 1)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nothing is taken away")
def test_a_process_has_no_secrets_no_network_and_no_place_to_write_but_its_own(opened, monkeypatch):
    sandbox = opened()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setenv("LANG", f"C.{listening.getsockname()[1]}")
        confined = sandbox.start()
        with pytest.raises(RefusedByModelError) as told:
            answer(sandbox, marked.ENVIRONMENT)
        assert "HOME" in str(told.value)
        assert "PASSWORD" not in str(told.value)
        assert "writes no bytecode" in str(told.value)  # also where the kernel forbids no writing
        if {"no network", "no TCP"} & set(confined):
            with pytest.raises(ModelFailedError, match="the model failed on this input") as failed:
                answer(sandbox, marked.CALL)
            assert "Error" in str(failed.value.__cause__)
    if "writes to its own folder alone" in confined:
        with pytest.raises(ModelFailedError) as failed:
            answer(sandbox, marked.WRITE)
        assert "PermissionError" in str(failed.value.__cause__)
        assert not Path("/tmp/penstock-python-test").exists()
    assert answer(sandbox, 1) == [2]
    assert sandbox.ends == []


def test_what_it_raises_costs_the_rows_alone(running):
    sandbox, pid = running, running.pid
    with pytest.raises(
        RefusedByModelError, match=r"the pipeline refuses these rows: ValueError: column 'x' is refused$"
    ):
        answer(sandbox, marked.REFUSE)
    with pytest.raises(ModelFailedError, match=r"^the model failed on this input$"):
        answer(sandbox, marked.FAIL)
    with pytest.raises(
        ModelFailedError, match=r"needs more memory for these rows than 512 MiB \(the limit is the setting"
    ):
        answer(sandbox, marked.EAT)
    assert answer(sandbox, 1) == [2]
    assert (sandbox.pid, sandbox.ends) == (pid, [])


@pytest.mark.long
@pytest.mark.parametrize(
    ("mark", "how"),
    [
        (marked.CRASH, "it ended with signal 11, SIGSEGV"),
        (marked.STOP, "it ended with exit code 3"),
        (marked.FLOOD, "it sent 4,294,967,295 bytes at once; expected at most 268,435,456"),
        (marked.BABBLE, "it sent something that is no answer"),
        (marked.LOOP, "it did not answer 1 rows within 0.5 s (the limit is the setting python.run_limit_s)"),
    ],
)
def test_what_ends_it_costs_the_rows_and_a_new_start(running, monkeypatch, mark, how):
    sandbox, pid = running, running.pid
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "_settings", replace(SETTINGS, run_limit_s=0.5) if mark == marked.LOOP else SETTINGS)
        with pytest.raises(ModelFailedError) as told:
            answer(sandbox, mark)
    assert str(told.value) == f"the process of the pipeline failed: {how}"
    assert sandbox.ends == [how]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert answer(sandbox, 1) == [2]
    assert len(list((paths.cache_dir() / "python").iterdir())) == 1


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ([], r"arrays of shape \[\], expected \[\(2, 1\)\]"),
        ([Array((2, 2), bytes(32))], "expected"),
        ([Array((2, 1), bytes(15))], "takes 16 bytes, got 15"),
        ([Array((2, 1), bytes(16))], None),
    ],
)
def test_arrays_are_checked_like_a_request_s(arrays, reason):
    outputs = marked.described().outputs
    if reason is None:
        assert sandboxes._arrays(Answered(arrays), outputs, 2)[0].tolist() == [[0.0], [0.0]]
    else:
        with pytest.raises(ValueError, match=reason):
            sandboxes._arrays(Answered(arrays), outputs, 2)


@pytest.mark.long
def test_a_process_that_ends_again_and_again_is_started_later_and_later(opened, monkeypatch):
    monkeypatch.setattr(sandboxes, "PAUSES_S", (0.0, 60.0))
    sandbox = opened()
    sandbox.start()
    for _ in range(2):
        with pytest.raises(ModelFailedError):
            answer(sandbox, marked.CRASH)
    with pytest.raises(NotReadyError, match="ended 2 times in a row, and is started again in 60 s"):
        answer(sandbox, 1)
    assert sandbox.pid is None


@pytest.mark.long
def test_an_answer_between_two_ends_starts_the_count_again(running, monkeypatch):
    monkeypatch.setattr(sandboxes, "PAUSES_S", (0.0, 60.0))
    for _ in range(2):
        with pytest.raises(ModelFailedError):
            answer(running, marked.CRASH)
        assert answer(running, 1) == [2]


def test_it_is_closed_while_it_loops(opened):
    sandbox = opened(PythonSettings(allow=True, run_limit_s=300.0, start_limit_s=120.0))
    sandbox.start()
    failures = []
    begun = threading.Event()

    def loop():
        begun.set()
        try:
            answer(sandbox, marked.LOOP)
        except NotReadyError as error:
            failures.append(str(error))

    thread = threading.Thread(target=loop)
    thread.start()
    begun.wait()
    sandbox.close()
    thread.join(30)
    assert failures
    assert sandbox.ends == []


def test_it_ends_with_the_thread_that_starts_processes_and_not_with_the_caller_s(opened):
    sandbox = opened()
    thread = threading.Thread(target=sandbox.start)
    thread.start()
    thread.join()
    assert answer(sandbox, 1) == [2]


@pytest.mark.long
def test_what_does_not_load_is_told(opened):
    with pytest.raises(InvalidInputError, match=r"the pipeline does not load here: .*not_there"):
        opened(content=b"\x80\x05cnot_there\nThing\n.").start()


@pytest.mark.long
def test_a_process_that_somebody_kills_is_started_again(running):
    os.kill(running.pid, signal.SIGKILL)
    with pytest.raises(ModelFailedError, match="it was killed"):
        answer(running, 1)
    assert answer(running, 1) == [2]
