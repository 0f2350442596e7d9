"""DVC, in an environment of its own: sixty packages that nothing else here needs."""

from pathlib import Path
from typing import Final

from tests import packages

VERSION: Final = "3.67.1"


def folder() -> Path:
    """The folder with the program `dvc`; skips the test where no package index can be reached."""
    return packages.programs(f"dvc-{VERSION}", f"dvc=={VERSION}")
