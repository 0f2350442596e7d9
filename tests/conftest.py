"""What every test of every package shares: hypothesis profiles, time limits, what a run does once."""

import fcntl
import gc
import logging
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, Phase, settings

# mlflow reads these when it is imported: no usage reports, and no progress bars in the output of tests.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# OpenMP reads it when scikit-learn is imported, also in the processes that tests start. The tests are on every core already:
# threads of one that wait for each other at every tree, while others have the cores, take seven times the processor.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No profile has a deadline or a limit for drawing: a busy machine says nothing about the code under test.
_STEADY: Final = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# While somebody works, a few examples each time, always others: those of a day are more than CI draws.
settings.register_profile("local", _STEADY, max_examples=20)
# Every CI run draws the same examples, so that a change fails only for what it changed.
settings.register_profile("ci", _STEADY, max_examples=100, derandomize=True, database=None, print_blob=True)
# The scheduled job looks further, at other examples in each run.
settings.register_profile("explore", _STEADY, derandomize=False, max_examples=1000, print_blob=True)
# A changed source is only to be noticed, in the same way each time.
settings.register_profile(
    "mutants",
    _STEADY,
    max_examples=100,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") == "true" else "local"))

# hypothesis shrinks a failing example for up to five minutes. The limit for other tests would end it before it has
# shown the example.
PROPERTY_TIMEOUT_S: Final = 600


QUICK: Final = ("test_columns", "test_drain", "test_wire")
"""The modules of integration tests that `make test` runs. The others are long, all of them: what a server's start takes would
only come before another test if the first alone were left out."""


def pytest_itemcollected(item: pytest.Item) -> None:
    if item.path.parent.name in {"integration", "conformance"} and item.path.stem not in QUICK:
        item.add_marker(pytest.mark.long)


@pytest.hookimpl(trylast=True)  # after hypothesis has marked the tests that it runs
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("hypothesis") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(PROPERTY_TIMEOUT_S))
    items.sort(key=_turn)  # keeps the order of all others


def _turn(item: pytest.Item) -> float:
    """Of the longest tests minus the time that they may take: they go first, and of the others those that wait for services.

    At the end, the other cores would have nothing: no process takes the last two tests of another.
    """
    if not item.get_closest_marker("long"):
        return -1.0 if item.get_closest_marker("slow") else 0.0
    limit = item.get_closest_marker("timeout")
    return -limit.args[0] if limit is not None and limit.args else 0.0


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What all the tests import is there to stay: no collection of garbage need look at it, neither meanwhile nor later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


_SHOWN_S: Final = 0.005
"""`--durations` shows no phase of a test that is shorter."""


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """A process of pytest-xdist sends what somebody reads of a test: five messages each are a tenth of a short test's time.

    Nothing reads that a test begins, nor a setup and a teardown that were quick, passed and wrote nothing; but the JUnit
    report, which waits for each teardown.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ or session.config.getoption("xmlpath"):
        return
    (interactor,) = (plugin for plugin in session.config.pluginmanager.get_plugins() if hasattr(plugin, "sendevent"))
    send = interactor.sendevent

    def send_what_is_read(name: str, **content: Any) -> None:
        if name == "logstart" or (name == "testreport" and _says_nothing(content["data"])):
            return
        send(name, **content)

    interactor.sendevent = send_what_is_read


def _says_nothing(report: dict[str, Any]) -> bool:
    is_quiet = report["outcome"] == "passed" and not report["sections"] and not report["user_properties"]
    return is_quiet and report["when"] != "call" and report["duration"] < _SHOWN_S


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run that all its processes see: each worker of pytest-xdist has its own below it."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session", autouse=True)
def _kernels_are_compiled_once(shared_folder: Path) -> Iterator[None]:
    """Compiling takes half a minute of CPU: a worker that needs the kernels waits for the one that compiles them."""
    compiled = sys.modules.get("penstock_server.kernels.compiled")
    if compiled is None:  # no test of this run needs them
        yield
        return
    build = compiled._build

    def build_once(kernels: Any, path: Path) -> None:
        with _locked(shared_folder / f"{path.name}.lock"):
            if compiled.read(path, compiled.own_key(kernels)) is None:
                build(kernels, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled, "_build", build_once)
        yield


@pytest.fixture(scope="session", autouse=True)
def _versions_are_timed_briefly() -> Iterator[None]:
    """A version that is loaded is timed for 0.16 s; in this process a tenth of it will do.

    Hundreds of tests load one, and where it matters who is faster they say so themselves. Servers that tests start take
    the whole time.
    """
    kernels = sys.modules.get("penstock_server.models.kernels")
    if kernels is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "_TIMED_S", kernels._TIMED_S / 10)
        yield


@pytest.fixture(scope="session", autouse=True)
def _tracebacks_are_plain() -> None:
    """Tests that import rich first have structlog draw tracebacks with it, and look through all modules for each: 100 ms.

    A server has none of rich (`penstock_server`), and logs them as Python does.
    """
    structlog = sys.modules.get("structlog")
    if structlog is not None and not structlog.is_configured():
        renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
        structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])


@pytest.fixture(autouse=True)
def _logging_is_as_before() -> Iterator[None]:
    """A command that a test runs in this process sets logging up for itself, with the stderr that this test alone has.

    A logger keeps the first configuration that it meets: one of another module would write to that file ever after.
    """
    structlog = sys.modules.get("structlog")
    if structlog is None:
        yield
        return
    root = logging.getLogger()
    handlers, level, former, configure = root.handlers[:], root.level, structlog.get_config(), structlog.configure

    def configure_for_now(**options: Any) -> None:
        configure(**options | {"cache_logger_on_first_use": False})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structlog, "configure", configure_for_now)
        yield
    if structlog.get_config()["logger_factory"] is not former["logger_factory"]:
        root.handlers[:] = handlers
        root.setLevel(level)
        configure(**former)


@pytest.fixture(scope="session")
def empty_registry(shared_folder: Path, pytestconfig: pytest.Config) -> Path:
    """The database of an empty registry, to be copied: mlflow takes seconds to make one, so pytest's cache keeps it."""
    from mlflow.store.db import utils
    from sqlalchemy import Engine, event

    event.listen(Engine, "connect", _write_without_waiting)
    # Each registry that is opened is compared with the last of mlflow's 60 migrations, which are all imported for it.
    utils._get_latest_schema_revision = cache(utils._get_latest_schema_revision)
    kept = getattr(pytestconfig, "cache", None)  # None with -p no:cacheprovider
    folder = shared_folder if kept is None else kept.mkdir("empty-registry")
    path = folder / f"{version('mlflow')}.db"
    with _locked(folder / "lock"):
        if not path.exists():
            from mlflow import MlflowClient

            unfinished = path.with_suffix(".unfinished")
            unfinished.unlink(missing_ok=True)
            MlflowClient(f"sqlite:///{unfinished}", f"sqlite:///{unfinished}").search_registered_models()
            unfinished.rename(path)
    return path


def _write_without_waiting(connection: Any, _: Any) -> None:
    """mlflow commits dozens of times in a test, and no registry of a test need outlive the machine's power."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


_FOLLOWED: Final = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """mlflow.set_tracking_uri writes into the environment, and every server that a later test starts would follow it."""
    before = {name: os.environ.get(name) for name in _FOLLOWED}
    try:
        return (yield)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
