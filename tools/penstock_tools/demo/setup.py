"""What the demo makes before the server starts: trained models in a registry with their roles, and the server's files.

Decides where these are; `train` decides how the models are trained.
"""

import asyncio
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from penstock.names import CANARY, CHAMPION, SHADOW
from penstock_server.errors import UnavailableError
from penstock_server.kernel_sets import KERNEL_SETS
from penstock_server.kernels.compiled import ensure_compiled
from penstock_tools.client_commands import http
from penstock_tools.demo import flights
from penstock_tools.demo.plan import CANARY_PERCENT, MODEL, MONTHS, DemoPlan
from penstock_tools.demo.traffic import thinned
from penstock_tools.demo.train import Registered, train
from penstock_tools.progress import Report
from penstock_tools.publish.promote import Promotion, promote

if TYPE_CHECKING:
    import pandas as pd

POLL_ROLES_S: Final = 0.2
SAMPLE_ROWS: Final = 5


@dataclass(frozen=True, slots=True)
class DemoSetup:
    """The registered models and the files that the server needs.

    Attributes:
        folder: holds the registry, artifacts, settings, cache and log.
        frame: the flights to stream, in the order of time.
        first, second: the registered versions.
    """

    plan: DemoPlan
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
        """A few rows for `penstock predict`."""
        return self.folder / "rows.json"

    @property
    def cache(self) -> Path:
        """The server's cache, in the demo's folder so that it goes with it."""
        return self.folder / "cache"

    def environment(self) -> dict[str, str]:
        """The variables that keep the server inside the folder."""
        return {"PENSTOCK_CACHE_DIR": str(self.cache), "PENSTOCK_DATA_DIR": str(self.folder)}


@contextmanager
def folder_of(plan: DemoPlan) -> Iterator[Path]:
    """The plan's folder, or a temporary one that is deleted on leaving unless the plan keeps it.

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


def build(plan: DemoPlan, folder: Path, report: Report) -> DemoSetup:
    """Trains and registers both versions, gives them their roles, and writes what the server needs.

    Raises:
        PenstockError: a model is not good enough, or the registry cannot be made.
    """
    report("looking for the compiled kernels, else compiling them")
    kernels = [ensure_compiled(each) for each in KERNEL_SETS]
    report("reading the flights of 2013")
    frame = flights.load()
    first, second = train(MODEL, registry=_registry(folder), frame=frame, with_champion=False, report=report)
    report("giving the roles in the registry")
    assign_roles(first.version, second.version, _registry(folder))
    made = DemoSetup(plan, folder, thinned(flights.by_months(frame, MONTHS), plan.rows), first, second)
    _write_files(made, kernels)
    return made


def _write_files(made: DemoSetup, kernels: Sequence[Path]) -> None:
    made.cache.mkdir(exist_ok=True)
    # Compiling takes seconds, and the kernels are the same for every server on this machine.
    for path in kernels:
        shutil.copy(path, made.cache / path.name)
    made.settings.write_text(made.plan.settings())
    text: str = made.frame.head(SAMPLE_ROWS)[list(flights.COLUMNS)].to_json(orient="records")
    made.rows.write_text(json.dumps(json.loads(text), indent=1))


def _registry(folder: Path) -> str:
    return f"sqlite:///{folder / 'registry.db'}"


def assign_roles(first: str, second: str, registry: str) -> None:
    """Makes the first version champion, and the second both canary and shadow.

    Raises:
        PenstockError: the registry refuses or does not answer.
    """
    promote(MODEL, first, CHAMPION, registry=registry)
    promote(MODEL, second, CANARY, CANARY_PERCENT, registry)
    promote(MODEL, second, SHADOW, registry=registry, also=True)


async def promote_second(version: str, registry: str) -> Promotion:
    """Makes the version champion as `penstock promote` does, on a thread.

    Raises:
        PenstockError: the registry refuses or does not answer.
    """
    return await asyncio.to_thread(promote, MODEL, version, registry=registry)


async def wait_for_roles(first: str, second: str, address: str, *, timeout_s: float = 60.0) -> None:
    """Waits until the server serves both versions in their roles.

    It may be ready before that, with the versions of an earlier demo in the same folder.

    Raises:
        UnavailableError: it does not in time; names the state of each version.
    """
    answer: Mapping[str, Any] = {"models": []}
    try:
        async with asyncio.timeout(timeout_s):
            while not has_roles(answer, first, second):
                await asyncio.sleep(POLL_ROLES_S)
                answer = msgspec.json.decode(await asyncio.to_thread(http.get, f"http://{address}/v1/models"))
    except TimeoutError:
        raise UnavailableError(f"the server does not serve both versions: {describe(answer)}") from None


def has_roles(answer: Mapping[str, Any], first: str, second: str) -> bool:
    """Whether /v1/models shows the first version as champion, the second as canary and shadow, and all ready."""
    roles = {(each["version"], each["role"]) for each in answer["models"] if each["state"] == "READY"}
    return roles >= {(first, CHAMPION), (second, CANARY), (second, SHADOW)}


def describe(answer: Mapping[str, Any]) -> str:
    """The versions with their roles and states."""
    versions = [
        " ".join(filter(None, (each["version"], each["role"], "is", each["state"], each["reason"])))
        for each in answer["models"]
    ]
    return "; ".join(versions) or "it has loaded no model"
