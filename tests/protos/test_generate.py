import subprocess
import sys
from pathlib import Path

import pytest

from penstock import generate

pytest.importorskip("grpc_tools")


def check(*, folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(generate, "FOLDER", folder)
    monkeypatch.setattr(sys, "argv", ["generate", "--check"])
    return generate.main()


def test_the_generated_files_are_fresh() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "penstock.generate", "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert (result.returncode, result.stdout) == (0, "")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A folder of the same name with the .proto files alone."""
    folder = tmp_path / "penstock"
    folder.mkdir()
    for proto in generate.FOLDER.glob("*.proto"):
        (folder / proto.name).write_text(proto.read_text())
    return folder


def test_check_says_what_is_stale_and_writes_nothing(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(folder=copy, monkeypatch=monkeypatch) == 1
    stale = "inference_pb2.py, inference_pb2.pyi, penstock_pb2.py, penstock_pb2.pyi"
    assert capsys.readouterr().out == f"stale: {stale}\n"
    assert list(copy.glob("*_pb2*")) == []


def test_writing_makes_it_fresh(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "FOLDER", copy)
    monkeypatch.setattr(sys, "argv", ["generate"])
    assert generate.main() == 0
    assert check(folder=copy, monkeypatch=monkeypatch) == 0
    assert (copy / "inference_pb2.py").read_text() == (Path(generate.__file__).parent / "inference_pb2.py").read_text()


def test_a_change_of_the_contract_is_stale(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "FOLDER", copy)
    monkeypatch.setattr(sys, "argv", ["generate"])
    generate.main()
    proto = copy / "inference.proto"
    proto.write_text(proto.read_text().replace("bool live = 1;", "bool live = 2;"))
    assert check(folder=copy, monkeypatch=monkeypatch) == 1
