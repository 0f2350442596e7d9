import os
from pathlib import Path

import pytest

from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources import directory_source
from penstock_server.sources.directory_source import DirectorySource, check_folder
from penstock_server.sources.settings import OwnPolicy, PolicySettings


def make(root: Path, *files: str) -> Path:
    """A model repository of these files; a name with a slash at its end is a folder."""
    for name in files:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_bytes(b"x")
    return root


@pytest.mark.parametrize(
    ("files", "plan", "problem"),
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
    files: list[str], plan: TrafficPlan, problem: str | None, tmp_path: Path
) -> None:
    if files == ["m/1/model.onnx/"]:
        files = ["m/1/model.onnx/inside"]
    found = DirectorySource(make(tmp_path, *files)).poll()
    assert found.models == {"m": plan}
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


def test_a_model_whose_folder_cannot_be_read_keeps_its_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def identity(root: Path) -> str:
    return DirectorySource(root).poll().identity("m", "1")


def test_a_file_that_is_replaced_is_another_version_of_the_same_number(tmp_path: Path) -> None:
    make(tmp_path, "m/1/model.onnx", "m/1/penstock/manifest.json")
    seen = [identity(tmp_path)]
    assert identity(tmp_path) == seen[0]
    model = tmp_path / "m" / "1" / "model.onnx"
    written = model.stat().st_mtime_ns
    aside = tmp_path / "aside"
    aside.write_bytes(b"y")  # as large as before, and then as old
    os.utime(aside, ns=(written, written))
    aside.rename(model)
    seen.append(identity(tmp_path))
    model.write_bytes(b"longer")
    seen.append(identity(tmp_path))
    os.utime(model, ns=(written + 1, written + 1))
    seen.append(identity(tmp_path))
    (tmp_path / "m" / "1" / "penstock" / "manifest.json").write_bytes(b"other")
    seen.append(identity(tmp_path))
    (tmp_path / "m" / "1" / "model.onnx.data").write_bytes(b"")
    seen.append(identity(tmp_path))
    assert len(set(seen)) == len(seen)


def test_a_link_to_the_files_is_followed_and_a_broken_one_is_nothing(tmp_path: Path) -> None:
    make(tmp_path / "stored", "1/model.onnx")
    make(tmp_path / "models", "m/")
    (tmp_path / "models" / "m" / "1").symlink_to(tmp_path / "stored" / "1")
    first = identity(tmp_path / "models")
    (tmp_path / "stored" / "1" / "broken").symlink_to("nowhere")
    assert identity(tmp_path / "models") == first
    (tmp_path / "stored" / "1" / "model.onnx").write_bytes(b"longer")
    assert identity(tmp_path / "models") != first


def test_a_version_of_endless_files_costs_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_source, "MAX_FILES", 2)
    make(tmp_path, "m/1/a", "m/1/b", "m/1/model.onnx")
    first = identity(tmp_path)
    (tmp_path / "m" / "1" / "model.onnx").write_bytes(b"longer")
    assert identity(tmp_path) == first


def test_files_come_with_the_identity_that_was_polled(tmp_path: Path) -> None:
    make(tmp_path, "m/1/model.onnx")
    found = DirectorySource(tmp_path).get("m", "1", "polled")
    assert (found.folder, found.identity) == (tmp_path / "m" / "1", "polled")


@pytest.mark.parametrize("is_file", [False, True])
def test_a_repository_that_is_missing_is_told_at_the_start(is_file: bool, tmp_path: Path) -> None:
    check_folder(tmp_path)
    path = tmp_path / "models"
    if is_file:
        path.write_text("")
    with pytest.raises(InvalidInputError, match=r"the model repository .*models cannot be read \((No such|Not a dir)"):
        check_folder(path)


def configured(root: Path, text: str, *files: str) -> DirectorySource:
    make(root, *files)
    (root / "m" / "config.pbtxt").write_text(text)
    return DirectorySource(root)


THREE = ("m/1/model.onnx", "m/2/model.onnx", "m/10/model.onnx")


@pytest.mark.parametrize(
    ("policy", "files", "plan", "problem"),
    [
        ("", THREE, TrafficPlan("10"), ""),
        ("latest { num_versions: 2 }", THREE, TrafficPlan("10", others=("2",)), ""),
        ("latest { num_versions: 9 }", THREE, TrafficPlan("10", others=("2", "1")), ""),
        ("latest { }", THREE, TrafficPlan("10"), ""),
        ("latest { num_versions: 2 }", (*THREE, "m/11/"), TrafficPlan("10", others=("2",)), ""),
        ("all { }", THREE, TrafficPlan("10", others=("2", "1")), ""),
        ("all { }", (*THREE, "m/12/model.pt"), TrafficPlan("10", others=("2", "1")), "version 12 holds 'model.pt'"),
        ("specific { versions: [ 1, 2 ] }", THREE, TrafficPlan("2", others=("1",)), ""),
        (
            "specific { versions: [ 1, 7 ] }",
            THREE,
            TrafficPlan("1"),
            "version_policy names version 7, which is not there",
        ),
        ("specific { versions: 7 }", THREE, TrafficPlan(), "version_policy names version 7, which is not there"),
    ],
)
def test_a_configuration_says_which_versions_are_served(
    policy: str, files: tuple[str, ...], plan: TrafficPlan, problem: str, tmp_path: Path
) -> None:
    found = configured(tmp_path, f"version_policy {{ {policy} }}", *files).poll()
    assert found.models == {"m": plan}
    assert problem in found.problems.get("m", "")
    assert set(found.problems) == ({"m"} if problem else set())
    assert set(found.identities.get("m", ())) == set(plan.versions)


def test_a_configuration_names_the_file(tmp_path: Path) -> None:
    source = configured(tmp_path, "default_model_filename: 'net.onnx'", "m/1/net.onnx", "m/2/model.onnx")
    assert source.poll().models == {"m": TrafficPlan("1")}
    assert source.fetch("m", "1") == tmp_path / "m" / "1"
    with pytest.raises(NotFoundError):
        source.fetch("m", "2")


def test_what_stands_beside_the_versions_is_a_part_of_them(tmp_path: Path) -> None:
    source = configured(
        tmp_path, "max_batch_size: 1", "m/1/model.onnx", "m/labels.txt", "m/warmup/raw", "m/2/model.onnx"
    )
    known = [source.poll().identity("m", "2")]
    for name, content in (("config.pbtxt", "max_batch_size: 12"), ("labels.txt", "cat"), ("warmup/raw", "zeros")):
        (tmp_path / "m" / name).write_text(content)
        known.append(source.poll().identity("m", "2"))
    assert len(set(known)) == 4
    (tmp_path / "m" / "1" / "model.onnx").write_text("another version")
    assert source.poll().identity("m", "2") == known[-1]


def test_a_configuration_that_is_not_served_hurts_no_other_model(tmp_path: Path) -> None:
    source = configured(tmp_path, "backend: 'python'", "m/1/model.py", "n/1/model.onnx")
    reason = "config.pbtxt: backend 'python' is not served, expected 'onnxruntime'"
    for _ in range(2):
        found = source.poll()
        assert (found.models, found.problems) == ({"n": TrafficPlan("1")}, {"m": reason})
    with pytest.raises(InvalidInputError, match="backend 'python'"):
        source.fetch("m", "1")
    (tmp_path / "m" / "config.pbtxt").write_text("default_model_filename: 'model.py'")
    assert source.poll().models == {"m": TrafficPlan("1"), "n": TrafficPlan("1")}


@pytest.mark.parametrize(
    ("policy", "champion", "others", "problem"),
    [
        (PolicySettings(), "3", (), None),
        (PolicySettings(latest=1), "3", (), None),
        (PolicySettings(latest=2), "3", ("2",), None),
        (PolicySettings(latest=9), "3", ("2", "1"), None),
        (PolicySettings(versions=(1,)), "1", (), None),
        (PolicySettings(latest=1, versions=(1,)), "3", ("1",), None),
        (PolicySettings(versions=(2, 7)), "2", (), "policy.versions names version 7, which is not there"),
        (PolicySettings(pinned=1), "1", (), None),
        (PolicySettings(latest=2, pinned=2), "2", ("3",), None),
        (PolicySettings(latest=2, pinned=1), "1", ("3", "2"), None),
        (PolicySettings(models={"m": OwnPolicy(latest=2)}), "3", ("2",), None),
        (PolicySettings(latest=3, models={"m": OwnPolicy(latest=0)}), "3", (), None),
        (PolicySettings(latest=3, models={"n": OwnPolicy(latest=0)}), "3", ("2", "1"), None),
    ],
)
def test_a_policy_says_which_versions_are_kept(
    policy: PolicySettings, champion: str, others: tuple[str, ...], problem: str | None, tmp_path: Path
) -> None:
    found = DirectorySource(make(tmp_path, *(f"m/{number}/model.onnx" for number in (1, 2, 3))), policy).poll()
    assert found.models == {"m": TrafficPlan(champion, others=others)}
    assert found.problems.get("m") == problem


def test_a_pinned_version_that_is_not_there_changes_nothing(tmp_path: Path) -> None:
    found = DirectorySource(make(tmp_path, "m/1/model.onnx"), PolicySettings(pinned=4)).poll()
    assert (found.models, "policy.pinned names version 4, which is not there" in found.problems["m"]) == ({}, True)
