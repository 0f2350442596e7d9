"""The rules as promtool sees them, the situations that they are tested with, and what people are told of each alert."""

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from penstock_server.metrics.counters import LATENCY_EDGES_S, REFUSALS
from penstock_tools.dashboards.__main__ import BOARDS, PAGE, TOOLS
from tests import debian

FOLDER: Final = TOOLS / "deploy" / "prometheus"
TEXT: Final = (FOLDER / "rules.yml").read_text()
RULES: Final[list[dict[str, Any]]] = [rule for group in yaml.safe_load(TEXT)["groups"] for rule in group["rules"]]
ALERTS: Final = {rule["alert"]: rule for rule in RULES if "alert" in rule}
SITUATIONS: Final = sorted(Path(__file__).parent.glob("rules*_test.yml"))


def promtool(*arguments: object) -> str:
    done = subprocess.run(
        [debian.program("promtool", "prometheus"), *map(str, arguments)], text=True, check=False, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_takes_the_configuration_with_the_rules() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "config", FOLDER / "prometheus.yml")


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("file", SITUATIONS, ids=lambda file: file.stem)
def test_the_right_alerts_fire_in_each_situation(file: Path) -> None:
    promtool("test", "rules", file)


def test_each_alert_fires_in_a_situation_and_has_a_line_in_the_page() -> None:
    fired = set(re.findall(r'alertname="(\w+)"', "".join(file.read_text() for file in SITUATIONS)))
    assert fired == ALERTS.keys()
    table = PAGE.read_text().partition("## Alerts")[2].partition("## Metrics")[0]
    told = set()
    for line in table.splitlines():
        first, *more = re.findall(r"`([\w.]+)`", line.split("|")[1]) if line.startswith("| `") else [""]
        told |= {first, *(re.sub(r"(Fast|)$", "", first, count=1) + name.removeprefix("...") for name in more)}
    assert told - {""} == ALERTS.keys()


def test_each_alert_says_whom_it_calls_and_where_to_look() -> None:
    for name, rule in ALERTS.items():
        assert rule["labels"]["severity"] in ("page", "ticket"), name
        assert rule["annotations"].keys() == {"summary", "description", "dashboard"}, name
        assert rule["annotations"]["dashboard"].removeprefix("penstock-") in {board.name for board in BOARDS}, name


def test_what_stands_for_a_bucket_or_a_reason_is_one() -> None:
    edges = {f"{edge:.6g}" for edge in LATENCY_EDGES_S}
    assert set(re.findall(r'\ble="([^"]+)"', TEXT)) <= edges
    assert set(re.findall(r"0\.\d+", TEXT.partition("groups:")[0])) <= edges
    assert {reason for found in re.findall(r'reason=~?"([^"]+)"', TEXT) for reason in found.split("|")} <= set(REFUSALS)
