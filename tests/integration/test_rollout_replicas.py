"""Rollouts of several servers on one registry: their counts are added up, one of them acts, and another takes over.

The counts come from the servers themselves, or from a Prometheus that scrapes them.
"""

import asyncio
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from penstock_server.control.port import reserve
from penstock_server.control.prometheus_evidence import PrometheusEvidence
from penstock_server.rollout.evidence import REQUESTS, Snapshot
from penstock_server.rollout.progress import EVIDENCE_TAG
from tests import debian
from tests.integration.test_registry import Server, Traffic, roles
from tests.integration.test_rollouts import SETTINGS, begin, recorded

pytestmark = pytest.mark.slow

snapshot = msgspec.json.Decoder(Snapshot).decode
SLOWLY = '{"steps": [50, 100], "hold": "5s", "requests": 200, "gates": {"errors": 1.5}, "errors_floor": 0.01}'


StartBoth = Callable[[], list[Server]]


@pytest.fixture
def start_both(start: Any, registry: Any, tmp_path: Path) -> Iterator[StartBoth]:
    """Starts two servers, each of which is told of the other; they have the same HTTP ports each time."""
    with reserve("127.0.0.1", 0) as first, reserve("127.0.0.1", 0) as second:
        ports = [reserved.getsockname()[1] for reserved in (first, second)]

        def started() -> list[Server]:
            servers: list[Server] = []
            for own, other in (ports, ports[::-1]):
                settings = tmp_path / f"{own}.toml"
                settings.write_text(f'{SETTINGS}replicas = ["http://127.0.0.1:{other}"]\n')
                http = ("--http-port", str(own))
                servers.append(start("--registry", registry.uri, "--config", str(settings), *http, "--workers", "1"))
            return [server.wait_ready() for server in servers]

        yield started


def acting(servers: list[Server]) -> list[Server]:
    return [
        server for server in servers if any(one["acting"] for one in json.loads(server.get("/v1/rollouts"))["rollouts"])
    ]


def routed(servers: list[Server], version: str) -> float:
    return sum(
        server.total("penstock_routed_requests_total", model_name="m", model_version=version) for server in servers
    )


def evidence(found: dict[str, Any]) -> int:
    """How many requests of the canary are in the record."""
    return sum(pair[0] for pair in found["evidence"]["events"].get(REQUESTS, {}).values())


def test_of_two_servers_one_acts_on_the_counts_of_both_and_the_other_goes_on_when_it_hangs(
    start_both: StartBoth, registry: Any, flag_model: bytes, penstock: Any, tmp_path: Path, until: Any
) -> None:
    registry.publish("m", flag_model, alias="champion")
    servers = start_both()
    fleet = [option for server in servers for option in ("--fleet", f"http://{server.http}")]
    code, shown, _ = penstock("models", *fleet, "--fail-on-difference")
    assert (code, shown.splitlines()[-1]) == (0, "all 2 servers answer, and serve what is wanted")
    registry.publish("m", flag_model)
    begin(penstock, registry, "m", SLOWLY, tmp_path)
    with Traffic(servers[0].grpc, "m", threads=2) as one, Traffic(servers[1].grpc, "m", threads=2) as two:
        until(lambda: all(roles(server, "m").get("canary") == "2" for server in servers), "it is canary")
        (holder,) = until(lambda: acting(servers), "one acts")
        (other,) = [server for server in servers if server is not holder]

        def known() -> int:
            found = json.loads(holder.get("/v1/rollouts"))["rollouts"]
            return sum(evidence(each) for each in found)

        # More than any one of them has counted.
        until(lambda: known() > max(routed([server], "2") for server in servers), "the counts of both are evidence")
        assert known() <= routed(servers, "2")
        assert acting(servers) == [holder]
        os.kill(holder.pid, signal.SIGSTOP)
        try:
            until(lambda: roles(other, "m") == {"champion": "2"}, "the other one finishes it")
            until(lambda: recorded(penstock, registry, "m")["status"] == "promoted", "the record says so")
        finally:
            os.kill(holder.pid, signal.SIGCONT)
        done = recorded(penstock, registry, "m")
        # The one that hung follows the registry again: it has looked, and changed nothing.
        until(lambda: roles(holder, "m") == {"champion": "2"}, "it sees that it is over")
        registry.publish("n", flag_model, alias="champion")
        until(lambda: roles(holder, "n"), "it has read the registry again, and looked")
    assert one.failures == two.failures == []
    assert acting(servers) in ([], [other])
    assert recorded(penstock, registry, "m") == done
    texts = [line["text"].partition(":")[0] for line in done["history"]]
    assert texts.count("promoted") == texts.count("promoting") == 1


@pytest.mark.parametrize("is_killed", [pytest.param(True, marks=pytest.mark.long), False])
def test_both_end_in_the_middle_of_a_step_and_go_on_with_what_was_known(
    is_killed: bool, start_both: StartBoth, registry: Any, flag_model: bytes, penstock: Any, tmp_path: Path, until: Any
) -> None:
    from mlflow import MlflowClient

    registry.publish("m", flag_model, alias="champion")

    def known(servers: list[Server]) -> int:
        """How many requests of the canary the one that acts knows of; 0 while none acts."""
        found = [
            one for server in servers for one in json.loads(server.get("/v1/rollouts"))["rollouts"] if one["acting"]
        ]
        return evidence(found[0]) if found else 0

    def saved() -> int:
        tags = MlflowClient(registry.uri, registry.uri).get_model_version("m", "2").tags
        return evidence({"evidence": json.loads(tags.get(EVIDENCE_TAG, '{"events": {}}'))})

    servers = start_both()
    registry.publish("m", flag_model)
    begin(penstock, registry, "m", SLOWLY.replace("5s", "50s" if is_killed else "20s"), tmp_path)
    with Traffic(servers[0].grpc, "m"), Traffic(servers[1].grpc, "m"):
        until(lambda: known(servers) > 100, "it has seen requests")
    if is_killed:
        # What was counted in the last half minute may be lost then.
        until(lambda: saved() > 100, "it is written", 60)
    for server in servers:
        if is_killed:
            server.kill()
        else:
            server.stop()
    before = saved()
    assert before > 100
    assert recorded(penstock, registry, "m")["stage"] == "50 %"
    servers = start_both()
    assert until(lambda: known(servers), "one acts") >= before
    with Traffic(servers[0].grpc, "m") as one, Traffic(servers[1].grpc, "m") as two:
        until(lambda: roles(servers[0], "m") == {"champion": "2"}, "it is champion")
    assert one.failures == two.failures == []
    until(lambda: recorded(penstock, registry, "m")["status"] == "promoted", "the record says so")
    texts = [line["text"].partition(":")[0] for line in recorded(penstock, registry, "m")["history"]]
    assert texts == ["50 %", "promoting", "promoted"]


@contextmanager
def prometheus(program: Path, port: int, targets: list[str], folder: Path) -> Iterator[str]:
    """A Prometheus that scrapes these, each by two jobs."""
    scraped = json.dumps([{"targets": targets}])
    jobs = [f"- {{job_name: {name}, static_configs: {scraped}}}" for name in ("once", "again")]
    file = folder / "prometheus.yml"
    file.write_text("\n".join(["global: {scrape_interval: 200ms, scrape_timeout: 200ms}", "scrape_configs:", *jobs]))
    options = {"config.file": file, "storage.tsdb.path": folder / "tsdb", "web.listen-address": f"127.0.0.1:{port}"}
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *(f"--{name}={value}" for name, value in options.items())], stdout=log, stderr=log
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def up(address: str) -> float:
    """How many targets answer, each by both jobs."""
    try:
        with urllib.request.urlopen(f"{address}/api/v1/query?query=sum(up)", timeout=5) as reply:
            (found,) = json.load(reply)["data"]["result"] or [{"value": [0, "0"]}]
    except OSError:
        return 0.0
    return float(found["value"][1])


async def test_prometheus_tells_what_two_servers_counted_and_nothing_of_one_that_ended(
    start: Any, registry: Any, flag_model: bytes, penstock: Any, tmp_path: Path, until: Any
) -> None:
    program = debian.program("prometheus", "prometheus")
    registry.publish("m", flag_model, alias="champion")
    registry.publish("m", flag_model, alias="canary", weight=30)
    with reserve("127.0.0.1", 0) as reserved:
        port = reserved.getsockname()[1]
    settings = tmp_path / "penstock.toml"
    settings.write_text(f'{SETTINGS}prometheus = "http://127.0.0.1:{port}"\n')
    on = ("--registry", registry.uri, "--config", str(settings), "--workers", "1")
    servers = [start(*on).wait_ready() for _ in range(2)]
    for server in servers:
        until(lambda server=server: roles(server, "m").get("canary") == "2", "it has the canary")
    with prometheus(program, port, [server.http for server in servers], tmp_path) as address:
        told = PrometheusEvidence(address)
        until(lambda: up(address) == 4, "all are scraped")
        with Traffic(servers[0].grpc, "m") as one, Traffic(servers[1].grpc, "m") as two:
            until(lambda: routed(servers, "2") > 200, "the canary has requests")
        assert one.failures == two.failures == []

        def of(each: Snapshot) -> tuple[Any, ...]:
            shadow = each.shadow
            return each.weight, each.version, each.champion, (shadow.agree, shadow.disagree, shadow.failed)

        async def until_found(expected: list[Snapshot]) -> None:
            """Waits until Prometheus says this, and each once, though two jobs scrape it."""
            wanted, seen = sorted(map(of, expected), key=repr), []
            try:
                async with asyncio.timeout(30):
                    while seen != wanted:
                        await asyncio.sleep(0.05)
                        seen = sorted(map(of, (await told.look("m", "2", "1")).values()), key=repr)
            except TimeoutError:
                assert seen == wanted

        counted = [snapshot(server.get("/v1/evidence/m?version=2&champion=1")) for server in servers]
        assert [each.weight for each in counted] == ["30", "30"]
        await until_found(counted)
        servers[0].stop()
        await until_found(counted[1:])
        # The other one acts on what Prometheus says.
        registry.forget("m", "canary")
        begin(penstock, registry, "m", SLOWLY.replace("5s", "1s"), tmp_path)
        with Traffic(servers[1].grpc, "m") as traffic:
            until(lambda: recorded(penstock, registry, "m")["status"] == "promoted", "it is promoted")
        assert traffic.failures == []
        (done,) = json.loads(servers[1].get("/v1/rollouts"))["rollouts"]
        assert 200 <= evidence(done) <= routed(servers[1:], "2")
