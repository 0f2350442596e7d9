"""Every panel of the dashboards and every rule, asked of a real Prometheus that scrapes a real server.

The server has a champion, a canary that is rolled out, a shadow, labels, drift, kept answers, a request log and a rule of
retraining.
"""

import json
import re
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest
import yaml

from penstock_client import Client, InvalidRequestError
from penstock_server.control.port import reserve
from penstock_tools.dashboards.__main__ import BOARDS, TOOLS
from penstock_tools.dashboards.board import Panel
from tests import debian
from tests.integration.test_registry import Server

# Beside other tests it takes longer than most.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

RULES: Final = TOOLS / "deploy" / "prometheus" / "rules.yml"
CITIES = np.array(["Oslo", "Bergen", "Bodø"], object)
SETTINGS = """
poll_interval_s = 0.2

[drift]
window_rows = 2000

[rollouts]
enabled = true
look_s = 0.2

[response_cache]
max_mib = 4

[response_cache.models.fares]
enable = true

[request_log]
directory = "{folder}/log"
sample_ratio = 0.5

[labels]
enabled = true
folder = "{folder}/labels"
maturity_s = 0.5

[retraining]
look_s = 0.2

[retraining.actions.train]
kind = "command"
command = ["true"]

[retraining.rules.rows]
rows = 100
action = "train"
"""
ROLLOUT = {"steps": [40, 100], "hold": "1h", "gates": {"errors": 1.5, "p50": 1.5, "accuracy": 1}}
SLOWLY_S: Final = 90.0
"""Until which something happens that takes a few seconds, on a machine that has other things to do."""
EMPTY: Final = {"Not ready", "Time of ensembles' steps", "Spans of traces", "Ends of Python processes"}
"""The panels for which nothing happens here; each says until when it is empty."""
VARIABLES: Final = {"$job": ".*", "$instance": ".*", "$model": ".*", "$__rate_interval": "10s"}


def rows(seed: int, count: int, shift: float = 0.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"delay": rng.normal(shift, 1.0, count), "city": rng.choice(CITIES, count), "age": rng.uniform(0, 9, count)}


def truth(table: dict[str, Any], seed: int) -> Any:
    noise = np.random.default_rng(seed).normal(0, 0.5, len(table["delay"]))
    return (table["delay"] + noise > 0).astype(int)


def publish(registry: Any) -> None:
    """Three versions of the same files, of which the first is champion."""
    import pandas as pd
    from mlflow import MlflowClient
    from sklearn.compose import make_column_transformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    from penstock_tools.publish.pipeline import publish_pipeline

    sample, later = rows(0, 2000), rows(1, 1000)
    columns = make_column_transformer((StandardScaler(), ["delay", "age"]), (OneHotEncoder(), ["city"]))
    fitted = make_pipeline(columns, LogisticRegression()).fit(pd.DataFrame(sample), truth(sample, 2))
    publish_pipeline(
        "fares",
        fitted,
        pd.DataFrame(sample),
        truth(sample, 2),
        registry=registry.uri,
        alias="champion",
        holdout=(pd.DataFrame(later), truth(later, 3)),
        report=lambda _: None,
    )
    client = MlflowClient(registry.uri, registry.uri)
    first = client.get_model_version("fares", "1")
    for _ in range(2):
        client.create_model_version("fares", first.source, first.run_id)


class Traffic:
    """Calls with drifted rows, labels for them, and now and then a call that is refused, until it is stopped."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._call)

    def _call(self) -> None:
        with Client(self._address, timeout_s=30) as client:
            seed = 100
            while not self._is_over.wait(0.005):
                seed += 1
                table = rows(seed, 4, shift=1.5)
                client.predict("fares", table, request_id=f"r{seed}")
                client.feedback("fares", {f"r{seed}": truth(table, seed).tolist()})
                if seed % 50 == 0:
                    with pytest.raises(InvalidRequestError):
                        client.predict("fares", {"delay": [1.0]})

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()


@dataclass(frozen=True)
class Prometheus:
    """One that runs, and how to ask it."""

    address: str

    def get(self, path: str, **query: str) -> Any:
        url = f"{self.address}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as reply:
            return json.load(reply)["data"]

    def is_empty(self, expr: str) -> bool:
        """Whether nothing but NaN answers a panel's query."""
        for name, value in VARIABLES.items():
            expr = expr.replace(name, value)
        found = self.get("query", query=expr)["result"]
        return all(each["value"][1] == "NaN" for each in found)

    def up(self) -> bool:
        try:
            return bool(self.get("query", query="up == 1")["result"])
        except OSError:
            return False


@contextmanager
def scraping(target: str, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes this and evaluates the rules, four times a second."""
    program = debian.program("prometheus", "prometheus")
    (folder / "rules.yml").write_text(RULES.read_text())
    config = yaml.safe_load((RULES.parent / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "500ms"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    with reserve("127.0.0.1", 0) as reserved:
        port = reserved.getsockname()[1]
    options = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": folder / "tsdb",
        "web.listen-address": f"127.0.0.1:{port}",
    }
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *(f"--{name}={value}" for name, value in options.items())], stdout=log, stderr=log
        )
    try:
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def server(
    start_shared: Any, shared_registry: Any, tmp_path_factory: pytest.TempPathFactory, until: Any
) -> Iterator[Server]:
    from penstock_tools.publish.promote import promote
    from penstock_tools.publish.rollout import start

    folder = tmp_path_factory.mktemp("monitoring")
    publish(shared_registry)
    settings = folder / "penstock.toml"
    settings.write_text(SETTINGS.format(folder=folder))
    running = start_shared("--registry", shared_registry.uri, "--config", str(settings)).wait_ready()
    start("fares", "2", ROLLOUT, registry=shared_registry.uri)
    promote("fares", "3", alias="shadow-b", also=True, registry=shared_registry.uri)
    # A rollout with a gate of latencies begins when the champion has shown some.
    with Traffic(running.grpc):
        until(
            lambda: {"canary", "shadow"} <= {row["role"] for row in running.models() if row["state"] == "READY"},
            "it has a canary and a shadow",
            SLOWLY_S,
        )
        yield running


@pytest.fixture(scope="module")
def prometheus(server: Server, tmp_path_factory: pytest.TempPathFactory, until: Any) -> Iterator[Prometheus]:
    with scraping(server.http, tmp_path_factory.mktemp("prometheus")) as running:
        until(running.up, "it scrapes the server")
        yield running


def empty(prometheus: Prometheus, panel: Panel) -> list[str]:
    """The queries of a panel that find nothing."""
    return [query.expr for query in panel.queries if prometheus.is_empty(query.expr)]


def test_every_panel_shows_something(prometheus: Prometheus, until: Any) -> None:
    wanted = [panel for board in BOARDS for panel in board.panels if panel.title not in EMPTY]

    def found() -> bool:
        wanted[:] = [panel for panel in wanted if empty(prometheus, panel)]
        return not wanted

    try:
        until(found, "every panel shows something", SLOWLY_S)
    except AssertionError:
        assert {panel.title: empty(prometheus, panel) for panel in wanted} == {}


def test_panels_for_which_nothing_happens_say_until_when(prometheus: Prometheus) -> None:
    silent = [panel for board in BOARDS for panel in board.panels if panel.title in EMPTY]
    assert {panel.title for panel in silent} == EMPTY
    assert [panel.title for panel in silent if not panel.empty_until or len(empty(prometheus, panel)) == 0] == []


def test_every_rule_can_be_evaluated_and_drift_calls_somebody(prometheus: Prometheus, until: Any) -> None:
    def rules() -> list[dict[str, Any]]:
        return [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]

    until(lambda: all(rule["health"] == "ok" for rule in rules()), "every rule has been evaluated", SLOWLY_S)
    # Five minutes are waited for before it fires.
    until(
        lambda: any(rule["name"] == "PenstockDrift" and rule["alerts"] for rule in rules()), "drift is seen", SLOWLY_S
    )


def test_promtool_objects_to_no_name(server: Server) -> None:
    program = debian.program("promtool", "prometheus")
    command, text = [program, "check", "metrics"], server.get("/metrics")
    done = subprocess.run(command, input=text, text=True, check=False, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_top_shows_the_same_in_a_terminal(server: Server, penstock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    code, out, error = penstock("top", "--once", "--interval", "0.5", "--http", f"http://{server.http}")
    assert (code, error) == (0, "")
    assert re.search(r"^[\d,]+/s requests, [\d.<]+% of the capacity used", out)
    shown = {words[1]: words[2:] for line in out.splitlines() if (words := line.split())[:1] == ["fares"]}
    assert shown["1"][0] == "champion", out
    assert {"READY", "≤", "ms"} <= set(shown["1"]), out
    assert shown["2"][:3] == ["canary", "40%", "READY"], out
    assert shown["3"][:2] == ["shadow", "READY"], out
    assert "rollout of fares 2: running, 40 %, " in out
    code, out, _ = penstock("top", "--json", "--interval", "0.5", "--http", f"http://{server.http}")
    champion = json.loads(out)[0]
    assert (code, champion["roles"], champion["state"]) == (0, ["champion"], "READY")
    assert champion["requests_per_s"] > 0
