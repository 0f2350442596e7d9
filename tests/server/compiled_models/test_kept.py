"""Programs that are kept answer as the one that was compiled, and whatever is wrong with a file, it is not run."""

import os

import numpy as np
import pytest

from penstock_server.compiled_models import kept, layout
from penstock_server.compiled_models.compiled_model import CompiledModel
from penstock_server.compiled_models.program import Given, Vectors
from tests.server.compiled_models.graphs import ML, compiled, model_of, node, regressor, rows_for

GIVEN = Given("x", 2, layout.SINGLE)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "cache_dir", lambda: tmp_path)  # not that of the kernels
    return tmp_path / "programs"


def classifier():
    given = {"coefficients": [0.1, 0.2, -0.1, -0.2], "intercepts": [0.1, -0.1], "classlabels_strings": ["a", "b"]}
    scores = node("LinearClassifier", ["x"], ["l", "p"], domain=ML, post_transform="LOGISTIC", **given)
    return model_of([scores], ["l", "p"], gives={"l": 8})


@pytest.mark.parametrize("content", [regressor(), classifier()], ids=["regressor", "labels that are texts"])
def test_a_program_that_was_kept_gives_the_same_answers(content):
    program = compiled(content)
    kept.keep("some key", program)
    found = kept.find("some key")
    assert (found.given, found.results, found.work, found.about) == (
        program.given,
        program.results,
        program.work,
        program.about,
    )
    assert found.block.ctypes.data % 64 == 0
    rows = rows_for(2, 40)
    for ours, theirs in zip(*(CompiledModel(one).run(rows.tobytes(), 40) for one in (found, program)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_every_part_of_what_a_program_depends_on_changes_its_key():
    keys = {
        kept.key_of(b"a", GIVEN, Vectors()),
        kept.key_of(b"b", GIVEN, Vectors()),
        kept.key_of(b"a", Given("x", 3, layout.SINGLE), Vectors()),
        kept.key_of(b"a", Given("x", 2, layout.DOUBLE), Vectors()),
        kept.key_of(b"a", GIVEN, Vectors(8, -88.0)),
    }
    assert len(keys) == 5


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[: len(kept.MAGIC)],
        lambda data: b"",
        lambda data: data[:-1] + bytes([data[-1] ^ 1]),
        lambda data: b"another file" + data,
    ],
    ids=["cut off", "no content", "empty", "a bit is wrong", "another form"],
)
def test_a_damaged_file_is_none(folder, damage):
    kept.keep("some key", compiled(regressor()))
    (path,) = folder.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert kept.find("some key") is None


def test_a_file_by_another_key_is_none(folder):
    kept.keep("some key", compiled(regressor()))
    (path,) = folder.iterdir()
    path.rename(path.with_name("another key.bin"))
    assert kept.find("another key") is None
    assert kept.find("no key") is None


def test_those_that_were_not_asked_for_the_longest_make_room(folder, monkeypatch):
    program = compiled(regressor())
    for age, key in enumerate(["c", "b", "a"]):
        kept.keep(key, program)
        os.utime(folder / f"{key}.bin", (1000 - age, 1000 - age))
    assert kept.find("a") is not None  # asked for now
    monkeypatch.setattr(kept, "MAX_BYTES", 3 * (folder / "a.bin").stat().st_size + 10)
    kept.keep("d", program)
    assert sorted(path.stem for path in folder.iterdir()) == ["a", "c", "d"]


def test_without_a_folder_to_write_to_nothing_is_kept(folder):
    folder.write_text("a file in its place")
    kept.keep("some key", compiled(regressor()))
    assert kept.find("some key") is None
