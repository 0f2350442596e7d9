"""Rollouts of several servers on one registry: their counts are added up, one of them acts, and another takes over."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from penstock_server.control.port import reserve
from penstock_server.rollout.evidence import REQUESTS
from tests.integration.test_registry import Server, Traffic, roles
from tests.integration.test_rollouts import SETTINGS, begin, recorded

pytestmark = pytest.mark.slow

SLOWLY = '{"steps": [50, 100], "hold": "5s", "requests": 200, "gates": {"errors": 1.5}, "errors_floor": 0.01}'


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
    start: Any, registry: Any, flag_model: bytes, penstock: Any, tmp_path: Path, until: Any
) -> None:
    registry.publish("m", flag_model, alias="champion")
    with reserve("127.0.0.1", 0) as first, reserve("127.0.0.1", 0) as second:
        ports = [reserved.getsockname()[1] for reserved in (first, second)]
        servers: list[Server] = []
        for own, other in (ports, ports[::-1]):
            settings = tmp_path / f"{own}.toml"
            settings.write_text(f'{SETTINGS}replicas = ["http://127.0.0.1:{other}"]\n')
            servers.append(
                start("--registry", registry.uri, "--config", str(settings), "--http-port", str(own), "--workers", "1")
            )
        for server in servers:
            server.wait_ready()
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
