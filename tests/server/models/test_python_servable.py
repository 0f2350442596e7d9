"""Versions that run a whole pipeline: what a server needs before it starts one, and how one answers behind the interface."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock.tensors import join_bytes
from penstock_server.drift.fit import fit_baseline
from penstock_server.errors import InvalidInputError
from penstock_server.features.counting import rows_of
from penstock_server.features.spec.blocks import Take
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, StringColumn
from penstock_server.features.spec.steps import Fill
from penstock_server.models import artifact, golden, python_servable
from penstock_server.models.loader import load
from penstock_server.models.python_servable import PythonServable, check
from penstock_server.prediction.decode import decoder_of
from penstock_server.prediction.outputs import reader_of
from penstock_server.python.description import PICKLE, Column, Output
from penstock_server.python.settings import PythonSettings
from tests.server.python.conftest import described

COLUMNS = (NumberColumn("x"), StringColumn("kind"))
SPEC = FeatureSpec(COLUMNS, Take(("x",), (Fill((0.0,)),)), "FP64")
TABLE = {"x": np.arange(50.0), "kind": np.array(["a", "b"] * 25, object)}
ALLOWED = PythonSettings(allow=True)


class Double:
    """A sandbox without a process: adds one, and refuses what is not in its file."""

    def __init__(self, key: Any, description: Any, content: Any, settings: PythonSettings) -> None:
        self.content, self.is_closed, self.on_end = content, False, None
        self.fails = content() == b"fails"

    def start(self) -> tuple[str, ...]:
        if self.fails:
            raise InvalidInputError("the pipeline does not load here")
        return ()

    def run(self, blocks: Any, rows: int) -> list[Any]:
        return [np.frombuffer(blocks[0]).reshape(rows, 1) + 1]

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def sandboxes(monkeypatch: pytest.MonkeyPatch) -> list[Double]:
    made: list[Double] = []

    def make(*arguments: Any) -> Double:
        made.append(Double(*arguments))
        return made[-1]

    monkeypatch.setattr(python_servable, "Sandbox", make)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / PICKLE).write_bytes(b"a pipeline")
    (tmp_path / "MLmodel").write_text("flavors: {penstock: {}}")
    return tmp_path


def written(folder: Path, **parts: Any) -> Path:
    given = {"python": described(requirements={}), "features": SPEC, "baseline": fit_baseline(SPEC, TABLE)}
    artifact.write(folder, **(given | parts))
    return folder


def test_a_version_is_loaded_decoded_counted_and_answered(folder: Path, sandboxes: list[Double]) -> None:
    inputs = {name: column[:8] for name, column in TABLE.items()}
    written(folder, golden=golden.make(inputs, {"prediction": TABLE["x"][:8, None] + 1}))
    servable, cost = load(("m", "1"), folder, threads=1, max_rows=8, python=ALLOWED)
    assert isinstance(servable, PythonServable)
    assert servable.is_elsewhere
    assert servable.engine.startswith("python: ")
    assert servable.varies == "it runs Python, of which nothing says that it answers alike each time"
    assert cost.of(1) > 0
    assert servable.batching is not None
    assert servable.batching.reason == "requests are batched by rows: proven on 8 golden rows"
    assert [(spec.name, spec.datatype) for spec in decoder_of(servable).inputs] == [("x", "FP64"), ("kind", "BYTES")]
    assert reader_of(servable).score == 0
    cells = np.zeros(servable.pipeline.cells_shape, np.int64)
    outputs = servable.predict([np.array([1.0, np.nan]).tobytes(), join_bytes(["a", ""])], 2, None, cells)
    assert outputs.arrays[0].ravel().tolist()[0] == 2
    assert outputs.refusal is None
    assert cells.any()
    assert servable.predict([b"", b""], 0, None, None).arrays[0].shape == (0, 1)
    cells[...] = 0
    servable.predict([np.arange(1100.0).tobytes(), join_bytes(["a"] * 1100)], 1100, None, cells)
    assert rows_of(cells) == servable.counted_rows(1100) == 275


def test_no_run_is_shown_as_one_that_could_hang_the_worker(folder: Path, sandboxes: list[Double]) -> None:
    servable, _ = load(("m", "1"), written(folder), threads=1, max_rows=8, python=ALLOWED)
    cells = [0, 0]
    seen: list[int] = []
    servable.report_runs(cells)
    servable.model.sandbox.run = lambda *_: seen.append(max(cells)) or [np.zeros((1, 1))]  # type: ignore[attr-defined]
    servable.predict([np.zeros(1).tobytes(), join_bytes(["a"])], 1, None, None)
    assert (seen, cells) == ([0], [0, 0])


def test_an_end_of_its_process_is_reported_and_closing_it_ends_it(folder: Path, sandboxes: list[Double]) -> None:
    servable, _ = load(("m", "1"), written(folder), threads=1, max_rows=8, python=ALLOWED)
    reported: list[str] = []
    servable.report_ends(reported.append)
    sandboxes[0].on_end("it ended")
    servable.close()
    assert (reported, sandboxes[0].is_closed) == (["it ended"], True)


def test_a_server_runs_no_python_unless_it_is_told_to(folder: Path, sandboxes: list[Double]) -> None:
    with pytest.raises(InvalidInputError, match=r"set allow = true under \[python\], or serve with --allow-python"):
        load(("m", "1"), written(folder), threads=1, max_rows=8)
    assert sandboxes == []


def test_packages_are_checked_before_a_process_starts() -> None:
    with pytest.raises(InvalidInputError, match=r"it needs no-such-package, not installed"):
        check(described(requirements={"no-such-package": "1"}), ALLOWED)
    other = described(requirements={"numpy": "99.0"})
    with pytest.raises(InvalidInputError, match=r"published with 99.0"):
        check(other, ALLOWED)
    check(other, PythonSettings(allow=True, any_version=True))


def test_another_release_is_noted_where_it_is_allowed(folder: Path, sandboxes: list[Double]) -> None:
    written(folder, python=described(requirements={"numpy": "99.0"}))
    servable, _ = load(("m", "1"), folder, threads=1, max_rows=8, python=PythonSettings(allow=True, any_version=True))
    assert "published with 99.0" in servable.batching_note


def test_a_file_that_changed_is_not_loaded_again(folder: Path, sandboxes: list[Double]) -> None:
    load(("m", "1"), written(folder), threads=1, max_rows=8, python=ALLOWED)
    assert sandboxes[0].content() == b"a pipeline"
    (folder / PICKLE).write_bytes(b"another")
    with pytest.raises(InvalidInputError, match=r"'pipeline.pkl' has changed since it was published"):
        sandboxes[0].content()


@pytest.mark.parametrize("parts", [{}, {"golden": golden.make({"x": [1.0], "kind": ["a"]}, {"prediction": [[9.0]]})}])
def test_a_load_that_fails_leaves_no_process(folder: Path, sandboxes: list[Double], parts: dict[str, Any]) -> None:
    if not parts:
        (folder / PICKLE).write_bytes(b"fails")
    with pytest.raises(InvalidInputError):
        load(("m", "1"), written(folder, **parts), threads=1, max_rows=8, python=ALLOWED)
    assert sandboxes[0].is_closed


def test_what_is_written_is_read(folder: Path) -> None:
    found = artifact.read(written(folder))
    assert found.python == described(requirements={})
    assert (found.model_path, found.features) == (folder / PICKLE, SPEC)


def test_columns_that_requests_would_be_decoded_into_wrongly_are_refused(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="name other columns"):
        written(folder, python=described(columns=(Column("kind", "text"), Column("x"))))
    with pytest.raises(InvalidInputError, match="comes without"):
        written(folder, features=None, baseline=None)


def test_a_pipeline_without_its_file_or_digest_is_refused(folder: Path) -> None:
    written(folder)
    (folder / PICKLE).unlink()
    with pytest.raises(InvalidInputError, match=r"file 'pipeline.pkl' is missing"):
        artifact.read(folder)


def test_classes_are_read_from_the_published_output(folder: Path, sandboxes: list[Double]) -> None:
    outputs = (Output("label", "BYTES", "predict"), Output("probabilities", "FP64", "predict_proba", 2))
    written(
        folder,
        python=described(requirements={}, outputs=outputs),
        class_output="label",
        classes=["no", "yes"],
        baseline=None,
    )
    sandbox_run = [np.array(["yes", "no"], object), np.zeros((2, 2))]
    found = artifact.read(folder)
    servable = python_servable.python_servable(("m", "1"), found, ALLOWED)
    reader = reader_of(servable)
    assert reader.classes is not None
    assert (reader.classes(sandbox_run).tolist(), reader.score) == ([1, 0], 1)
