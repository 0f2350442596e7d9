"""The lock holds what pyproject.toml asks for, and nothing that belongs to one machine."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parent.parent
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK: Final = (ROOT / "requirements.lock").read_text()
PINS: Final = [Requirement(line.rstrip(" \\")) for line in LOCK.splitlines() if "==" in line]


def requirements(extra: str | None) -> Iterator[Requirement]:
    """What this extra asks for, with what the extras that it names ask for."""
    lines = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    for requirement in map(Requirement, lines):
        if requirement.name != PROJECT["name"]:
            yield requirement
        for another in requirement.extras if requirement.name == PROJECT["name"] else ():
            yield from requirements(another)


def test_each_requirement_has_a_version_that_fits() -> None:
    unfit = []
    for requirement in [*requirements(None), *requirements("dev")]:
        pins = [pin for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
        versions = [next(iter(pin.specifier)).version for pin in pins]
        if not versions or not all(version in requirement.specifier for version in versions):
            unfit.append(f"{requirement} is locked as {versions}")
    assert unfit == [], "run make lock"


def test_each_package_has_its_digests() -> None:
    blocks = re.split(r"\n(?=\S)", LOCK.strip())
    assert [block for block in blocks if not block.startswith("#") and "--hash=sha256:" not in block] == []


def test_no_line_names_an_index_or_a_folder() -> None:
    assert re.findall(r"^.*(?:://|--index|--find-links|^-e|file:).*$", LOCK, re.MULTILINE) == []
