from pathlib import Path

import pytest

from penstock_server.errors import NotFoundError, UnavailableError
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources.directory_source import DirectorySource


def make(root: Path, *files: str) -> Path:
    """A model repository of these files; a name with a slash at its end is a folder."""
    for name in files:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    ("files", "wanted", "problem"),
    [
        (["m/1/model.onnx"], TrafficPlan("1"), None),
        (["m/1/model.onnx", "m/2/model.onnx"], TrafficPlan("2"), None),
        (["m/9/model.onnx", "m/10/model.onnx"], TrafficPlan("10"), None),
        (["m/0/model.onnx"], TrafficPlan("0"), None),
        (["m/1/model.onnx", "m/2/"], TrafficPlan("1"), None),
        (["m/1/model.onnx", "m/2/.copying"], TrafficPlan("1"), None),
        (["m/1/model.onnx", "m/2/model.pt"], TrafficPlan("1"), "version 2 holds 'model.pt' and no model.onnx"),
        (["m/2/model.onnx", "m/1/model.pt"], TrafficPlan("2"), None),
        (["m/1/model.onnx/"], TrafficPlan(), "version 1 holds"),
        (["m/1/"], TrafficPlan(), "no version holds model.onnx yet"),
        (["m/model.onnx"], TrafficPlan(), "there is no version"),
        (["m/007/model.onnx", "m/v1/model.onnx", "m/-1/model.onnx", "m/٣/model.onnx"], TrafficPlan(), "no version"),
        (["m/1/model.onnx", "m/README", "m/.2/model.onnx"], TrafficPlan("1"), None),
    ],
)
def test_the_highest_whole_version_is_champion(
    files: list[str], wanted: TrafficPlan, problem: str | None, tmp_path: Path
) -> None:
    if files == ["m/1/model.onnx/"]:
        files = ["m/1/model.onnx/inside"]
    found = DirectorySource(make(tmp_path, *files)).poll()
    assert found.models == {"m": wanted}
    assert set(found.problems) == (set() if problem is None else {"m"})
    assert (problem or "") in found.problems.get("m", "")


def test_files_and_hidden_folders_are_passed_over(tmp_path: Path) -> None:
    found = DirectorySource(make(tmp_path, "README", ".git/1/model.onnx", "a/1/model.onnx", "b/3/model.onnx")).poll()
    assert found.models == {"a": TrafficPlan("1"), "b": TrafficPlan("3")}
    assert found.problems == {}


def test_an_empty_repository_wants_nothing(tmp_path: Path) -> None:
    assert DirectorySource(tmp_path).poll().models == {}


def test_a_model_that_nobody_can_name_does_not_hurt_the_others(tmp_path: Path) -> None:
    found = DirectorySource(make(tmp_path, "a/1/model.onnx", "b\n/1/model.onnx")).poll()
    assert set(found.models) == {"a"}
    assert set(found.problems) == {r"'b\n'"}


def test_a_model_whose_folder_cannot_be_read_keeps_its_wish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a/1/model.onnx", "b/1/model.onnx")
    listing = Path.iterdir

    def refuse(path: Path) -> object:
        if path.name == "a":
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    found = DirectorySource(tmp_path).poll()
    assert set(found.models) == {"b"}
    assert found.problems == {"a": "its folder cannot be read: Permission denied"}


@pytest.mark.parametrize("is_file", [False, True])
def test_a_repository_that_is_no_folder_is_told(is_file: bool, tmp_path: Path) -> None:
    path = tmp_path / "models"
    if is_file:
        path.write_text("")
    with pytest.raises(UnavailableError, match=r"the model repository .*models cannot be read"):
        DirectorySource(path).poll()


def test_fetch_gives_the_folder_itself(tmp_path: Path) -> None:
    source = DirectorySource(make(tmp_path, "m/1/model.onnx"))
    assert source.fetch("m", "1") == tmp_path / "m" / "1"


@pytest.mark.parametrize(
    ("model", "version"),
    [
        ("m", "2"),
        ("x", "1"),
        ("m", "../m/1"),
        ("..", "1"),
        ("", "1"),
        ("sub/m", "1"),
        ("m", ""),
        ("m\0", "1"),
        ("m", "01"),
    ],
)
def test_what_is_not_there_is_not_found(model: str, version: str, tmp_path: Path) -> None:
    source = DirectorySource(make(tmp_path / "r", "m/1/model.onnx", "sub/m/1/model.onnx", "../1/model.onnx"))
    with pytest.raises(NotFoundError, match="is not in directory"):
        source.fetch(model, version)
