"""What a reader beside the joiner finds: labels by request id, as callers know them."""

from pathlib import Path

import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.labels.kept import KeptLabels
from penstock_server.labels.layout import SHADOW
from penstock_server.labels.prediction_file import AnsweredVersion
from tests.server.labels.test_joiner import FARES, TWO, World

COUNTS = AnsweredVersion("counts", "1", "d", "class")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_labels_are_found_by_id_and_row_as_callers_know_them(world: World) -> None:
    world.answer("a", 1.0, 0.0)
    world.answer("a", 1.0, 1.0, version=TWO, role=SHADOW)
    world.answer("b", 1.0)
    world.answer("a", 7.5, version=FARES)
    world.answer("a", 3.0, version=COUNTS)
    world.after(0.5)
    world.label("a", "yes")
    world.label("a", "no", row=1)
    world.label("b", "unheard of")
    world.label("a", 8.25, model="fares")
    world.label("a", 4, model="counts")
    world.after(2)
    kept = KeptLabels(world.folder, "fraud")
    assert len(kept) == 2
    assert kept.of(["a", "a", "a", "b", "c"], [0, 1, 2, 0, 0]) == ["yes", "no", None, None, None]
    assert KeptLabels(world.folder, "fares").of(["a"], [0]) == [8.25]
    assert KeptLabels(world.folder, "counts").of(["a"], [0]) == [4]
    other = KeptLabels(world.folder, "other")
    assert (len(other), other.of(["a"], [0])) == (0, [None])


def test_what_the_joiner_let_go_of_is_not_found(world: World) -> None:
    world.answer("a", 1.0)
    world.after(0.5)
    world.label("a", "yes")
    world.after(2)
    for path in (world.folder / "answers").iterdir():
        path.unlink()
    assert len(KeptLabels(world.folder, "fraud")) == 0


def test_labels_of_a_step_that_never_ended_are_not_there(world: World) -> None:
    world.answer("a", 1.0)
    world.after(0.5)
    world.label("a", "yes")
    world.after(2)
    (segment,) = world.joiner._store.segments
    segment.rows["label_step"][0] = world.joiner.state.step + 1
    assert len(KeptLabels(world.folder, "fraud")) == 0


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_a_folder_without_labels_is_told_and_left_as_it_is(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "state").write_bytes(content)
    before = list(tmp_path.iterdir())
    with pytest.raises(InvalidInputError, match="holds no labels that a server keeps"):
        KeptLabels(tmp_path, "fraud")
    assert list(tmp_path.iterdir()) == before
