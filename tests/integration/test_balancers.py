"""The proxies that the documentation describes, before two servers of which one drains and comes back: no call is lost."""

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Self

import grpc
import pytest

from penstock_server.control.port import reserve
from tests import debian
from tests.integration.conftest import Server, Starter, _put_version, _until
from tests.integration.test_drain import request

BALANCING = Path(__file__).resolve().parents[2] / "tools" / "deploy" / "balancing"
INFER = "/inference.GRPCInferenceService/ModelInfer"
CALLERS = 8
TIMEOUT_S = 20.0
PACKAGES = {"haproxy": "haproxy", "nginx": "nginx-light"}
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
FILES = {"haproxy": "haproxy.cfg", "nginx": "nginx.conf"}

pytestmark = [pytest.mark.slow, pytest.mark.long]


RETRIES = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


class Callers:
    """Calls that follow one another on a few connections, and how they ended."""

    def __init__(self, address: str, *, are_retried: bool) -> None:
        self.ends: Counter[str] = Counter()
        self._stop = threading.Event()
        options: list[tuple[str, int | str]] = [("grpc.use_local_subchannel_pool", 1)]
        options.append(("grpc.service_config", json.dumps(RETRIES)) if are_retried else ("grpc.enable_retries", 0))
        self._channels = [grpc.insecure_channel(address, options=options) for _ in range(2)]
        self._threads = [threading.Thread(target=self._call, args=(self._channels[n % 2],)) for n in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def _call(self, channel: grpc.Channel) -> None:
        infer, message = channel.unary_unary(INFER), request()
        while not self._stop.is_set():
            try:
                infer(message, timeout=TIMEOUT_S, wait_for_ready=True)
                self.ends["OK"] += 1
            except grpc.RpcError as error:
                self.ends[f"{error.code().name}: {error.details()}"] += 1

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(2 * TIMEOUT_S)
        for channel in self._channels:
            channel.close()


def port_of(address: str) -> str:
    return address.rpartition(":")[2]


def configured(name: str, servers: list[Server], port: int) -> str:
    """The documented file with the addresses of the servers that are here."""
    text = (BALANCING / FILES[name]).read_text()
    text = re.sub(r"(bind|listen) (?::)?8000", rf"\g<1> 127.0.0.1:{port}", text)
    for place, server in enumerate(servers, 1):
        text = text.replace(f"10.0.0.{place}:8001 port 8002", f"10.0.0.{place}:8001 port {port_of(server.http)}")
        text = text.replace(f"10.0.0.{place}:8001", server.grpc)
    assert "10.0.0." not in text
    return text


class Proxy:
    """A proxy before these servers, by the documented file.

    HAProxy is told before a server is stopped, and its callers try nothing again. A reload of nginx itself ends calls that had
    not begun, so it is told nothing, and its callers try again.
    """

    def __init__(self, name: str, servers: list[Server], folder: Path) -> None:
        self._folder = folder
        program = debian.program(name, PACKAGES[name])
        with reserve("127.0.0.1", 0) as reserved:
            port = int(reserved.getsockname()[1])
        self.address = f"127.0.0.1:{port}"
        text = configured(name, servers, port).replace("/run/haproxy/penstock.sock", f"{folder}/proxy.sock")
        line = [str(program), "-db", "-f", str(folder / FILES[name])]
        if name == "nginx":
            places = "".join(f"{each}_temp_path {folder}/{each};" for each in TEMPORARY)
            text = text.replace("http {", f"http {{ access_log off; {places}", 1)
            line = [str(program), "-p", str(folder), "-e", "stderr", "-c", str(folder / FILES[name])]
            line += ["-g", "daemon off; pid nginx.pid;"]
        (folder / FILES[name]).write_text(text)
        with (folder / "proxy.log").open("w") as log:
            self._process = subprocess.Popen(line, env=debian.environment(program), stdout=log, stderr=log)

    def take(self, place: int, *, is_out: bool) -> None:
        """Takes a server out, as HAProxy's file says, or in again."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self._folder / "proxy.sock"))
            state = "drain" if is_out else "ready"
            admin.sendall(f"set server penstock/{('one', 'two')[place]} state {state}\n".encode())
            assert admin.recv(1000).strip() == b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        ended = self._process.poll()
        self._process.terminate()
        self._process.wait(TIMEOUT_S)
        assert ended is None, (self._folder / "proxy.log").read_text()


def asked(server: Server) -> float:
    return server.total("penstock_requests_total")


def is_quiet(server: Server) -> bool:
    """Whether no call has come for a while."""
    before = asked(server)
    threading.Event().wait(0.3)
    return asked(server) == before


@pytest.mark.parametrize("name", list(PACKAGES))
def test_no_call_is_lost_while_a_server_drains_and_comes_back(
    name: str, start: Starter, flag_model: bytes, tmp_path: Path
) -> None:
    repository = tmp_path / "models"
    repository.mkdir()
    _put_version(repository, "flag", "1", flag_model)
    more = ("--model-repository", str(repository))
    servers = [each.wait_ready() for each in [start(*more) for _ in range(2)]]
    with Proxy(name, list(servers), tmp_path) as proxy:
        callers, are_retried, leaving = Callers(proxy.address, are_retried=name == "nginx"), name == "nginx", servers[0]
        try:
            for server in servers:
                _until(partial(lambda at: asked(at) > 100, server), "calls come to both")
            if not are_retried:
                proxy.take(0, is_out=True)
                _until(partial(is_quiet, leaving), "no more calls come to the one that is taken out")
            os.kill(leaving.pid, signal.SIGTERM)
            leaving.wait(TIMEOUT_S)
            answered = callers.ends["OK"]
            _until(lambda: callers.ends["OK"] > answered + 200, "the other answers")
            ports = ("--port", port_of(leaving.grpc), "--http-port", port_of(leaving.http))
            again = start(*more, *ports).wait_ready()
            if not are_retried:
                proxy.take(0, is_out=False)
            _until(lambda: asked(again) > 100, "calls come to it again")
        finally:
            callers.close()
        assert callers.ends.keys() == {"OK"}, callers.ends
