import io
import json
import sys
from collections.abc import Iterator

import pytest
import structlog

from penstock_server.log_setup import configure_logging


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _configuration_is_put_back() -> Iterator[None]:
    former, was_configured = structlog.get_config(), structlog.is_configured()
    yield
    structlog.configure(**former) if was_configured else structlog.reset_defaults()


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


def test_people_read_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    configure_logging()
    structlog.get_logger().info("loaded", model="fraud")
    (line,) = sys.stderr.getvalue().splitlines()
    assert "loaded" in line
    assert "fraud" in line
    assert not line.startswith("{")
