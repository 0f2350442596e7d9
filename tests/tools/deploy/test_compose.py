"""The compose file is one by Compose's schema, and what it names is there."""

import re
import subprocess
import sys
from inspect import signature
from pathlib import Path
from typing import Any, Final

import yaml

from penstock_tools.cli.serve import serve
from penstock_tools.dashboards.__main__ import FOLDER, TOOLS

FILE: Final = TOOLS / "deploy" / "compose.yml"
COMPOSE: Final[dict[str, Any]] = yaml.safe_load(FILE.read_text())
SERVICES: Final = COMPOSE["services"]
ROOT: Final = TOOLS.parent


def test_it_is_one_by_the_schema_of_compose() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(command, text=True, check=False, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_is_mounted_is_there() -> None:
    sources = [mount.split(":")[0] for service in SERVICES.values() for mount in service.get("volumes", ())]
    folders = [FILE.parent / source for source in sources if source.startswith(".")]
    assert [folder for folder in folders if not folder.is_dir()] == []
    assert {source for source in sources if not source.startswith(".")} == COMPOSE["volumes"].keys()
    assert (FILE.parent / SERVICES["penstock"]["build"]["context"] / "Dockerfile").resolve().is_file()


def test_ports_are_open_to_this_machine_alone() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_penstock_takes_its_options() -> None:
    options = {each for each in SERVICES["penstock"]["command"] if each.startswith("--")}
    known = {f"--{name.replace('_', '-')}" for name in signature(serve).parameters}
    assert options <= known


def test_mlflow_is_the_release_that_is_tested_and_lets_penstock_in() -> None:
    locked = re.search(r"^mlflow==([\d.]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked
    assert f"mlflow:v{locked[1]}\n" in SERVICES["mlflow"]["build"]["dockerfile_inline"]
    (hosts,) = [each for each in SERVICES["mlflow"]["command"] if each.startswith("--allowed-hosts=")]
    registry = SERVICES["penstock"]["command"][1]
    assert registry.removeprefix("http://") in hosts.partition("=")[2].split(",")


def test_grafana_finds_dashboards_and_data_where_the_provisioning_says() -> None:
    mounts = dict(mount.removesuffix(":ro").split(":") for mount in SERVICES["grafana"]["volumes"])
    inside = {target: (FILE.parent / source).resolve() for source, target in mounts.items()}
    provisioning = inside["/etc/grafana/provisioning"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "penstock.yml").read_text())["providers"]
    assert inside[provider["options"]["path"]] == FOLDER
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (inside[str(home.parent)] / home.name).is_file()
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    assert source["type"] == "prometheus"


def test_prometheus_scrapes_penstock_as_often_as_graphs_expect() -> None:
    config = yaml.safe_load((FILE.parent / "prometheus" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["penstock:8002"]}]
    source = yaml.safe_load((FILE.parent / "grafana/provisioning/datasources/prometheus.yml").read_text())
    assert source["datasources"][0]["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]
