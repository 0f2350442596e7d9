import json
from typing import Any

import pytest

from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_server.rollout.progress import COMMAND_TAG, PROGRESS_TAG, Progress, write_progress
from penstock_server.rollout.spec import RolloutSpec
from penstock_tools.publish import rollout
from penstock_tools.publish.promote import promote


@pytest.fixture
def two(client: Any) -> Any:
    """A model with three versions, of which the first is champion."""
    client.create_registered_model("fraud")
    for _ in range(3):
        client.create_model_version("fraud", "file:///nowhere")
    promote("fraud", 1)
    return client


def progress(client: Any, version: str, status: str, stage: int = 0) -> None:
    record = Progress(spec=RolloutSpec(), champion="1", status=status, stage=stage)  # type: ignore[arg-type]
    client.set_model_version_tag("fraud", version, PROGRESS_TAG, write_progress(record))


def test_a_declaration_becomes_a_tag_and_an_alias(two: Any) -> None:
    spec = rollout.start("fraud", 2, {"steps": [10, 100], "hold": "1m"})
    assert spec.steps == (0.1, 1.0)
    version = two.get_model_version("fraud", "2")
    assert json.loads(version.tags["penstock.rollout"]) == {"steps": [10, 100], "hold": 60.0}
    assert str(two.get_registered_model("fraud").aliases["candidate"]) == "2"
    found = rollout.status("fraud")
    assert (found.version, found.progress, found.spec) == ("2", None, spec)
    assert found.as_record()["status"] == "declared"


@pytest.mark.parametrize(
    ("version", "declared", "error", "said"),
    [
        (1, {}, InvalidInputError, "is its champion already"),
        (9, {}, NotFoundError, "there is no version 9"),
        (2, {"steps": [50, 5]}, InvalidInputError, "expected rising percentages"),
        (2, {"speed": 1}, InvalidInputError, "a rollout has no 'speed'"),
    ],
)
def test_what_cannot_be_rolled_out_is_refused(
    two: Any, version: int, declared: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        rollout.start("fraud", version, declared)
    assert "candidate" not in two.get_registered_model("fraud").aliases


def test_one_rollout_of_a_model_at_a_time(two: Any) -> None:
    rollout.start("fraud", 2, {})
    progress(two, "2", "running")
    with pytest.raises(InvalidInputError, match="version 2 of fraud is being rolled out; end that"):
        rollout.start("fraud", 3, {})
    progress(two, "2", "rolled_back")
    rollout.start("fraud", 3, {})
    assert str(two.get_registered_model("fraud").aliases["candidate"]) == "3"


def test_what_was_on_record_goes_when_it_begins_again(two: Any) -> None:
    rollout.start("fraud", 2, {})
    progress(two, "2", "rolled_back")
    rollout.start("fraud", 2, {})
    assert PROGRESS_TAG not in two.get_model_version("fraud", "2").tags


def test_commands_are_tags_for_the_server(two: Any) -> None:
    rollout.start("fraud", 2, {})
    progress(two, "2", "running", 1)
    assert rollout.command("fraud", "advance") == "version 2, which is at 25 %"
    assert two.get_model_version("fraud", "2").tags[COMMAND_TAG].startswith("advance 1 ")
    rollout.command("fraud", "pause")
    assert two.get_model_version("fraud", "2").tags[COMMAND_TAG].startswith("pause  ")


def test_what_cannot_be_commanded_is_refused(two: Any) -> None:
    with pytest.raises(NotFoundError, match="no version of fraud is being rolled out"):
        rollout.command("fraud", "pause")
    rollout.start("fraud", 2, {})
    with pytest.raises(InvalidInputError, match="has not begun"):
        rollout.command("fraud", "pause")
    with pytest.raises(InvalidInputError, match="no command 'boost'"):
        rollout.command("fraud", "boost")
    assert "had not begun" in rollout.command("fraud", "abort")
    assert "candidate" not in two.get_registered_model("fraud").aliases
    rollout.start("fraud", 2, {})
    progress(two, "2", "promoted")
    with pytest.raises(InvalidInputError, match="is over: promoted"):
        rollout.command("fraud", "abort")


def test_promoting_a_version_by_hand_takes_it_back_into_traffic(two: Any) -> None:
    progress(two, "2", "rolled_back")
    promote("fraud", 2, "canary", 5)
    assert PROGRESS_TAG not in two.get_model_version("fraud", "2").tags


@pytest.mark.parametrize(
    ("name", "text"), [("a.toml", "steps = [5"), ("a.json", "{"), ("a.json", "[1]"), ("none.toml", None)]
)
def test_a_file_that_is_no_declaration_is_refused(tmp_path: Any, name: str, text: str | None) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInputError, match="is no declaration of a rollout"):
        rollout.read_file(tmp_path / name)
