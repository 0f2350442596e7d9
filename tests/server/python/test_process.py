"""What the process of a pipeline says, without a process of its own."""

import numpy as np
import pytest

from penstock.tensors import from_raw
from penstock_server.python import process
from penstock_server.python.messages import (
    Answered,
    PipelineFailed,
    PipelineRun,
    PipelineStart,
    Ready,
    command,
    encoded,
    event,
)
from tests.server.python import conftest as marked


@pytest.fixture
def said(monkeypatch, content):
    """What it says to these commands, without limits on this process."""
    monkeypatch.setattr(process.confine, "confine", lambda folder, memory_mib: ("limits",))

    def run(*commands, start=None):
        given = [start or PipelineStart(marked.described(), content, "/none", 1), *commands]
        received = iter([*(command(encoded(each)) for each in given), None])
        events = []
        process.serve(lambda: next(received), lambda each: events.append(event(encoded(each))), ("no network",))
        return events

    return run


def test_it_loads_and_answers(said):
    ready, answered = said(PipelineRun(marked.blocks_of(1, 2), 2))
    assert ready == Ready(("no network", "limits"))
    (array,) = answered.arrays
    assert from_raw(array.raw, "FP64", array.shape).tolist() == [[2.0], [3.0]]


def test_what_a_pipeline_raises_is_told_and_the_next_rows_are_answered(said):
    marks = (marked.REFUSE, marked.FAIL, marked.EXIT, 1)
    _, refused, fault, left, answered = said(*(PipelineRun(marked.blocks_of(each), 1) for each in marks))
    assert (refused.kind, refused.text) == ("refused", "ValueError: column 'x' is refused")
    assert (fault.kind, fault.text) == ("fault", "RuntimeError: secret")
    assert "in predict" in fault.trace
    assert (left.kind, left.text) == ("fault", "SystemExit: 4")
    assert isinstance(answered, Answered)


def test_a_lack_of_memory_is_told(said, monkeypatch):
    def answers(*_):
        raise MemoryError

    monkeypatch.setattr("penstock_server.python.answers.answers", answers)
    assert said(PipelineRun(marked.blocks_of(1), 1))[1] == PipelineFailed("memory", "")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"no pickle", "UnpicklingError: "),
        (b"\x80\x05\x95\x10", "UnpicklingError: pickle data was truncated"),
        (b"\x80\x05cnot_there\nThing\n.", "ModuleNotFoundError: No module named 'not_there'"),
    ],
    ids=["damaged", "cut off", "not installed"],
)
def test_what_does_not_load_is_told_and_ends_it(said, content, text):
    (failed,) = said(PipelineRun(marked.blocks_of(1), 1), start=PipelineStart(marked.described(), content, "/none", 1))
    assert isinstance(failed, PipelineFailed)
    assert text in failed.text


def test_joblib_starts_no_processes():
    from joblib import Parallel, delayed

    with process._one_process():
        assert Parallel(n_jobs=4)(delayed(np.sqrt)(each) for each in [4.0]) == [2.0]
        assert Parallel(n_jobs=4)._backend.__class__.__name__ == "SequentialBackend"


def test_nothing_is_said_without_a_start():
    events = []
    process.serve(lambda: None, events.append, ())
    assert events == []
