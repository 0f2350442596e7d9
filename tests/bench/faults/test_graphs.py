"""The graphs in onnxruntime itself: what they answer, and that they misbehave for marked rows alone."""

import numpy as np
import pytest

from bench.faults import graphs


def session(onnx: bytes):
    from onnxruntime import InferenceSession, SessionOptions

    options = SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return InferenceSession(onnx, options)


def run(onnx: bytes, rows: np.ndarray) -> list[np.ndarray]:
    return session(onnx).run(None, {"x": rows})


NUMBERS = np.arange(6, dtype=np.int64)[:, None] * 4096


@pytest.mark.parametrize("side", [0, 16])
def test_answers_are_the_rows_and_the_version(side) -> None:
    rows = np.hstack([NUMBERS, -NUMBERS]).astype(np.float64)
    assert np.array_equal(run(graphs.answering(7, side=side), rows)[0], rows + 7)
    assert np.array_equal(run(graphs.failing(7, side=side), NUMBERS)[0], NUMBERS + 7)


@pytest.mark.parametrize("side", [0, 16])
def test_a_marked_row_fails(side) -> None:
    rows = NUMBERS.copy()
    rows[3] = graphs.MARK
    with pytest.raises(Exception, match="Gather"):
        run(graphs.failing(7, side=side), rows)


def test_honest_rows_do_not_hang_the_loop() -> None:
    assert np.array_equal(run(graphs.hanging(is_always=False), NUMBERS)[0], NUMBERS)


def test_what_is_eaten_leaves_the_answer() -> None:
    rows = np.ones((2, 2))
    assert np.array_equal(run(graphs.eating(1 / 1024), rows)[0], rows)


def test_constants_are_folded_to_nothing() -> None:
    rows = np.ones((2, 2))
    assert np.array_equal(run(graphs.folding(side=4, steps=3), rows)[0], rows)


def test_other_graphs_take_what_their_requests_hold() -> None:
    pairs = np.ones((3, 2), np.float32)
    assert [len(each) for each in run(graphs.many_outputs(4), pairs)] == [3] * 4
    assert run(graphs.wide(5), pairs)[0].tolist() == [[2.0] * 5] * 3
    assert run(graphs.layers(8), pairs)[0].shape == (3, 1)
    assert run(graphs.matrix(2), pairs)[0].tolist() == pairs.tolist()
    texts = np.array([["a"], ["é"]], object)
    assert run(graphs.text(), texts)[0].tolist() == texts.tolist()


def test_a_version_appears_whole(tmp_path) -> None:
    folder = graphs.put(tmp_path, "m", 3, b"onnx")
    assert folder == tmp_path / "m" / "3"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert (folder / "model.onnx").read_bytes() == b"onnx"
