"""The stage: everything that is there before the server starts, in one folder.

Decides where registry, cache, settings and rows lie, and what is trained; how a model is trained, and when it is good
enough, is `penstock_tools.demo.train`'s business.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from penstock_server.errors import UnavailableError
from penstock_server.features.compiled import ensure_compiled
from penstock_tools.demo import flights, roles
from penstock_tools.demo.plan import MODEL, MONTHS, Plan
from penstock_tools.demo.steps import Report
from penstock_tools.demo.stream import thinned
from penstock_tools.demo.train import Registered, train

if TYPE_CHECKING:
    import pandas as pd

SAMPLE_ROWS = 5


@dataclass(frozen=True, slots=True)
class Stage:
    """What is there once the models are registered.

    Attributes:
        frame: the flights to stream, in the order of time.
        first, second: the versions, as training registered them.
    """

    plan: Plan
    folder: Path
    frame: "pd.DataFrame"
    first: Registered
    second: Registered

    @property
    def registry(self) -> str:
        """The MLflow registry's address."""
        return _registry(self.folder)

    @property
    def log(self) -> Path:
        """Where the server's standard error goes."""
        return self.folder / "server.log"

    @property
    def settings(self) -> Path:
        """The server's settings, a TOML file."""
        return self.folder / "server.toml"

    @property
    def rows(self) -> Path:
        """A few rows to ask a server about."""
        return self.folder / "rows.json"

    @property
    def cache(self) -> Path:
        """The server's cache: the demo's own, so that nothing of it stays behind."""
        return self.folder / "cache"

    def environment(self) -> dict[str, str]:
        """The variables that keep the server inside the folder."""
        return {"PENSTOCK_CACHE_DIR": str(self.cache), "PENSTOCK_DATA_DIR": str(self.folder)}


@contextmanager
def folder_of(plan: Plan) -> Iterator[Path]:
    """The folder asked for, or a temporary one that is deleted on leaving unless the plan keeps it.

    Raises:
        UnavailableError: it cannot be made.
    """
    if plan.folder is not None:
        try:
            plan.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnavailableError(f"the folder {plan.folder} cannot be made: {error.strerror}") from error
        yield plan.folder.absolute()
        return
    folder = Path(tempfile.mkdtemp(prefix="penstock-demo-"))
    try:
        yield folder
    finally:
        if not plan.keep:
            shutil.rmtree(folder, ignore_errors=True)


def build(plan: Plan, folder: Path, report: Report) -> Stage:
    """Trains and registers both versions, gives them their roles, and writes what the server needs.

    Raises:
        PenstockError: a model is not good enough, or the registry cannot be made.
    """
    report("looking for the compiled feature kernels, else compiling them")
    kernels = ensure_compiled()
    report("reading the flights of 2013")
    frame = flights.load()
    first, second = train(MODEL, registry=_registry(folder), frame=frame, with_champion=False, report=report)
    report("giving the roles in the registry")
    roles.cast(first.version, second.version, _registry(folder))
    stage = Stage(plan, folder, thinned(flights.by_months(frame, MONTHS), plan.rows), first, second)
    _furnish(stage, kernels)
    return stage


def _furnish(stage: Stage, kernels: Path) -> None:
    stage.cache.mkdir(exist_ok=True)
    # Compiling takes seconds, and they are the same for every server of this machine.
    shutil.copy(kernels, stage.cache / kernels.name)
    stage.settings.write_text(stage.plan.settings())
    text: str = stage.frame.head(SAMPLE_ROWS)[list(flights.COLUMNS)].to_json(orient="records")
    stage.rows.write_text(json.dumps(json.loads(text), indent=1))


def _registry(folder: Path) -> str:
    return f"sqlite:///{folder / 'registry.db'}"
