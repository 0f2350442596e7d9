import io
import json
import logging
import os
import sys
from collections.abc import Iterator

import pytest
import structlog

from penstock_server.log_setup import (
    FORMAT_VARIABLE,
    LEVEL_VARIABLE,
    LIBRARY_LINES,
    MOST_LINES,
    LogLevel,
    configure_logging,
    recent_lines,
    set_level,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _configuration_is_put_back() -> Iterator[None]:
    yield
    configure_logging()


def test_programs_read_one_json_object_per_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    configure_logging()
    log = structlog.get_logger()
    log.debug("not shown")
    log.info("loaded", model="fraud", version="3")
    try:
        raise ValueError("no such file")
    except ValueError:
        log.exception("failed")
    loaded, failed = map(json.loads, sys.stderr.getvalue().splitlines())
    assert loaded.pop("timestamp").endswith("Z")
    assert loaded == {"event": "loaded", "level": "info", "model": "fraud", "version": "3"}
    assert "ValueError: no such file" in failed["exception"]


def test_the_level_may_change_while_loggers_are_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setenv(LEVEL_VARIABLE, "info")
    configure_logging("info")
    log = structlog.get_logger()
    levels: list[LogLevel] = ["debug", "error", "warning", "info"]
    log.debug("start")
    for level in levels:
        set_level(level)
        assert os.environ[LEVEL_VARIABLE] == level
        for write in (log.debug, log.info, log.warning, log.error):
            write(level)
    found = [json.loads(line) for line in sys.stderr.getvalue().splitlines()]
    assert [(each["event"], each["level"]) for each in found] == [
        ("debug", "debug"), ("debug", "info"), ("debug", "warning"), ("debug", "error"),
        ("error", "error"),
        ("warning", "warning"), ("warning", "error"),
        ("info", "info"), ("info", "warning"), ("info", "error"),
    ]  # fmt: skip


def test_people_read_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    configure_logging()
    structlog.get_logger().info("loaded", model="fraud")
    (line,) = sys.stderr.getvalue().splitlines()
    assert "loaded" in line
    assert "fraud" in line
    assert not line.startswith("{")


def test_level_and_format_are_chosen_and_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv(LEVEL_VARIABLE, "debug")
    monkeypatch.delenv(FORMAT_VARIABLE, raising=False)
    configure_logging("warning", "json")
    assert (os.environ[LEVEL_VARIABLE], os.environ[FORMAT_VARIABLE]) == ("warning", "json")
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    configure_logging()  # as a process does that this one starts
    log = structlog.get_logger()
    log.info("not shown")
    log.warning("shown")
    assert json.loads(sys.stderr.getvalue())["event"] == "shown"
    monkeypatch.setenv(LEVEL_VARIABLE, "loud")
    monkeypatch.setenv(FORMAT_VARIABLE, "console")
    configure_logging()
    structlog.get_logger().info("for people")
    assert sys.stderr.getvalue().splitlines()[-1].endswith("for people")


def test_libraries_log_in_the_same_form_at_a_bounded_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    configure_logging("info", "json")
    logging.getLogger("grpc._server").info("not shown")
    try:
        raise ValueError("no such file")
    except ValueError:
        logging.getLogger("grpc._server").exception("Exception calling application")
    for number in range(LIBRARY_LINES):
        logging.getLogger("grpc.aio").warning("line %d", number)
    logging.getLogger("another").warning("%d", "no number")
    first, *_, last, other = map(json.loads, sys.stderr.getvalue().splitlines())
    assert (first["event"], first["level"], first["error"], first["library"]) == (
        "Exception calling application",
        "error",
        "ValueError: no such file",
        "grpc",
    )
    assert (last["event"], last["more"]) == (f"line {LIBRARY_LINES - 2}", "left out for a minute")
    assert other["event"] == "%d"


def test_a_task_that_failed_is_logged_with_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    configure_logging("info", "json")
    try:
        raise ValueError("a bug")
    except ValueError as error:
        logging.getLogger("asyncio").error("Task exception was never retrieved", exc_info=error)
    found = json.loads(sys.stderr.getvalue())
    assert found["error"] == "ValueError: a bug"
    assert "test_log_setup.py" in found["exception"]


def test_lines_about_models_and_workers_are_kept_whatever_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setenv(LEVEL_VARIABLE, "error")
    configure_logging("error")
    log = structlog.get_logger()
    log.info("first", model="m", version="3", took_s=0.5)
    log.debug("too small", model="m")
    log.info("a caller is not known", reason="of no model")
    log.error("long", slot=0, reason="x" * 1000, exc_info=ValueError("no such file"))
    first, second = recent_lines()[-2:]
    assert (first.level, first.event, first.about) == ("info", "first", {"model": "m", "version": "3", "took_s": "0.5"})
    assert second.about == {"slot": "0", "reason": "x" * 300}
    for number in range(2 * MOST_LINES):
        log.info("again", slot=number)
    assert [line.about["slot"] for line in recent_lines()] == [str(MOST_LINES + at) for at in range(MOST_LINES)]
