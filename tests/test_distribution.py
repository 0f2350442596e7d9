"""The wheel and the sdist: all that runs is in them, and no tests."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_string
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
VERSION: Final[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
SOURCES: Final = {
    "penstock": ROOT / "protos",
    "penstock_client": ROOT / "client",
    "penstock_server": ROOT / "server",
    "penstock_tools": ROOT / "tools",
    "penstock_conformance": ROOT / "tools",
}


def package_files() -> set[str]:
    return {
        str(path.relative_to(folder))
        for package, folder in SOURCES.items()
        for path in (folder / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    return folder


@pytest.mark.long
def test_the_wheel_holds_each_file_of_the_packages(built: Path) -> None:
    with zipfile.ZipFile(built / f"penstock-{VERSION}-py3-none-any.whl") as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == package_files()
    assert {f"{package}/py.typed" for package in SOURCES} | {
        "penstock/inference.proto",
        "penstock/penstock.proto",
    } <= names


@pytest.mark.long
def test_the_sdist_holds_the_same_and_no_tests(built: Path) -> None:
    with tarfile.open(built / f"penstock-{VERSION}.tar.gz") as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    folders = {package: folder.name for package, folder in SOURCES.items()}
    assert {f"{folders[name.partition('/')[0]]}/{name}" for name in package_files()} <= names
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml"} <= names
    assert [name for name in names if name.startswith(("tests/", "bench/"))] == []
    # An example may be a whole repository, with tests of its own.
    assert [name for name in names if "/test_" in name and not name.startswith("tools/examples/")] == []


def test_the_installed_wheel_runs(built: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(built / f"penstock-{VERSION}-py3-none-any.whl", tmp_path, "zip")
    run = [sys.executable, "-c", "from penstock_tools.cli.main import main; main()", "--version"]
    # Coverage would look for the sources of this copy when it is gone.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    environment["PYTHONPATH"] = str(tmp_path)
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"penstock {VERSION}\n"
    metadata = message_from_string((tmp_path / f"penstock-{VERSION}.dist-info/METADATA").read_text())
    assert metadata["Requires-Python"] == ">=3.11"
    assert (
        "penstock = penstock_tools.cli.main:main"
        in (tmp_path / f"penstock-{VERSION}.dist-info/entry_points.txt").read_text()
    )
