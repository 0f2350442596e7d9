"""CONTRIBUTING names files that are there, and so does the table of what the mutants change."""

import re
from pathlib import Path
from typing import Final

from tests import mutants

ROOT: Final = Path(__file__).parent.parent
TEXT: Final = (ROOT / ".github" / "CONTRIBUTING.md").read_text()


def test_each_file_that_is_named_is_there() -> None:
    named = {
        path
        for path in re.findall(r"`([\w./*-]+/[\w./*-]*(?:\.py|\.toml|\.sh|/))`", TEXT)
        if not path.startswith((".venv", "rules"))
    }
    assert len(named) > 15
    folders = (ROOT, ROOT / "server" / "penstock_server")
    assert {path for path in named if not any(list(folder.glob(path)) for folder in folders)} == set()


def test_each_target_that_is_named_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", TEXT)) <= targets


def test_each_file_that_mutants_change_is_there_with_its_tests() -> None:
    assert [path for file, tests in mutants.PURE.items() for path in (file, *tests) if not (ROOT / path).exists()] == []
