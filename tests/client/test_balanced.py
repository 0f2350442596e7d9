"""Clients of several servers: real ones of this process, which stop, come back, and say that they are ill."""

import asyncio
import gc
import socket
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from penstock_client import AsyncClient, Backoff, Balancing, Client, ServerUnavailableError
from penstock_client.balanced import BalancedCalls, numbers
from penstock_client.testing import FakeServer
from tests.client.conftest import standard_models

ROW = {"age": 41, "city": "Oslo"}
QUICK = Backoff(initial_s=0.001, cap_s=0.01)
OFTEN = Balancing(check_every_s=0.05, check_timeout_s=0.5, resolve_every_s=0.05)
WAIT_S = 10.0


@pytest.fixture
def servers():
    started = [FakeServer(standard_models()) for _ in range(3)]
    yield started
    for server in started:
        server.stop()


@pytest.fixture
def client(servers):
    with Client([server.address for server in servers], backoff=QUICK, balancing=OFTEN) as client:
        yield client


def inferred(servers):
    return [len(server.calls("ModelInfer")) for server in servers]


def until(is_so):
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, "it did not come about"
        threading.Event().wait(0.01)


@pytest.mark.usefixtures("transport")
def test_calls_are_spread_over_the_servers(client, servers):
    for _ in range(9):
        assert client.predict("fares", ROW)["fare"].tolist() == [82.0]
    assert min(inferred(servers)) >= 2


@pytest.mark.usefixtures("transport")
def test_overlapping_calls_are_spread_too(client, servers):
    answers = client.predict_many("fares", [{"age": age, "city": "x"} for age in range(30)], in_flight=6)
    assert [answer["fare"].item() for answer in answers] == [2.0 * age for age in range(30)]
    assert min(inferred(servers)) >= 5
    assert [place.in_flight for place in client._calls._places.all] == [0, 0, 0]


def test_a_loop_that_is_left_early_leaves_no_call_counted(client):
    answers = client.predict_many("fares", [ROW] * 30, in_flight=6)
    next(answers)
    answers.close()
    assert [place.in_flight for place in client._calls._places.all] == [0, 0, 0]


@pytest.mark.usefixtures("transport")
def test_a_server_that_stops_costs_no_answer(client, servers):
    for _ in range(3):
        client.predict("fares", ROW)
    servers[0].stop()
    before = inferred(servers)
    for _ in range(20):
        assert client.predict("fares", ROW)["fare"].tolist() == [82.0]
    assert inferred(servers)[0] == before[0]


def test_no_pause_is_taken_where_another_server_can_be_asked_at_once(servers):
    addresses = [server.address for server in servers]
    for server in servers[:2]:
        server.stop()
    with Client(addresses, retries=0, backoff=Backoff(initial_s=1e6, cap_s=1e6), balancing=OFTEN) as client:
        for _ in range(5):
            assert client.predict("fares", ROW)["fare"].tolist() == [82.0]
    assert inferred(servers)[2] == 5


def test_a_server_that_says_that_it_is_ill_is_left_out_until_it_is_well(client, servers):
    servers[1].is_healthy = False
    client.predict("fares", ROW)
    until(lambda: [bool(place.failures) for place in client._calls._places.all] == [False, True, False])
    before = inferred(servers)
    for _ in range(6):
        client.predict("fares", ROW)
    assert inferred(servers)[1] == before[1]
    servers[1].is_healthy = True
    until(lambda: not any(place.failures for place in client._calls._places.all))
    for _ in range(6):
        client.predict("fares", ROW)
    assert inferred(servers)[1] > before[1]


def test_without_any_server_the_last_reason_is_told(servers):
    for server in servers[:2]:
        server.stop()
    both = ",".join(server.address for server in servers[:2])
    with (
        Client(both, retries=1, backoff=QUICK, balancing=OFTEN) as client,
        pytest.raises(ServerUnavailableError, match="failed to connect") as failed,
    ):
        client.predict("fares", ROW)
    assert failed.value.server == both.replace(",", ", ")


def test_a_name_stands_for_all_its_addresses(monkeypatch):
    # Two servers on one port, each at an address of its own: this machine answers to all of 127.0.0.0/8.
    places = ["127.0.0.1", "127.0.0.2"]
    port, handlers = _two_servers(places)
    found = [places[:1]]
    asked = threading.Event()

    def looked_up(host, port, **_):
        assert host == "models.test"
        asked.set()
        if not found[0]:
            raise socket.gaierror("no address")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (place, port)) for place in found[0]]

    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *a, **k: looked_up(host, *a, **k) if host == "models.test" else real(host, *a, **k),
    )
    try:
        with Client(f"dns:///models.test:{port}", balancing=OFTEN, backoff=QUICK) as client:
            client.is_live()
            assert [place.key for place in client._calls._places.all] == [f"127.0.0.1 {port}"]
            found[0] = places
            until(lambda: len(client._calls._places.all) == 2)
            for _ in range(6):
                assert client.is_live()
            assert {name for name, _ in handlers.seen} == set(places)
            found[0] = []
            asked.clear()
            assert asked.wait(WAIT_S)
            assert client.is_live()
    finally:
        for server in handlers.servers:
            server.stop(None).wait()


class _Handlers:
    def __init__(self):
        self.seen, self.servers = [], []


def _two_servers(places):
    handlers = _Handlers()
    port = 0
    for place in places:
        server = grpc.server(ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])

        def live(_, __, place=place):
            handlers.seen.append((place, "ServerLive"))
            return b"\x08\x01"

        methods = {"ServerLive": grpc.unary_unary_rpc_method_handler(live)}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),)
        )
        port = server.add_insecure_port(f"{place}:{port}")
        server.start()
        handlers.servers.append(server)
    return port, handlers


def test_a_name_without_addresses_is_told():
    with (
        Client("dns:///no-such-host.invalid:1", retries=0) as client,
        pytest.raises(ServerUnavailableError, match="failed to find a server"),
    ):
        client.predict("fares", ROW)


def test_a_client_that_nobody_has_any_more_is_looked_after_no_longer(servers):
    client = Client([server.address for server in servers], balancing=OFTEN)
    client.is_live()
    watcher, calls = client._calls._watcher, weakref.ref(client._calls)
    assert watcher.is_alive()
    del client
    gc.collect()
    watcher.join(WAIT_S)
    assert not watcher.is_alive()
    assert calls() is None


def test_a_closed_client_is_looked_after_no_longer(client):
    client.is_live()
    watcher = client._calls._watcher
    client.close()
    watcher.join(WAIT_S)
    assert not watcher.is_alive()


def test_a_forked_process_looks_after_its_own(client):
    client.is_live()
    client._calls.forget()
    assert client._calls._watcher is None
    assert client.is_live()
    assert client._calls._watcher.is_alive()


@pytest.mark.usefixtures("transport")
async def test_calls_are_spread_and_a_server_that_stops_costs_no_answer_asyncio(servers):
    addresses = [server.address for server in servers]
    async with AsyncClient(addresses, backoff=QUICK, balancing=OFTEN) as client:
        for _ in range(9):
            await client.predict("fares", ROW)
        assert min(inferred(servers)) >= 2
        await asyncio.to_thread(servers[0].stop)
        before = inferred(servers)
        for _ in range(20):
            assert (await client.predict("fares", ROW))["fare"].tolist() == [82.0]
        assert inferred(servers)[0] == before[0]


async def test_a_server_that_says_that_it_is_ill_is_left_out_asyncio(servers):
    servers[1].is_healthy = False
    async with AsyncClient([server.address for server in servers], balancing=OFTEN) as client:
        await client.predict("fares", ROW)
        places = client._calls._places
        await asyncio.to_thread(until, lambda: [bool(place.failures) for place in places.all] == [False, True, False])
        before = inferred(servers)
        for _ in range(6):
            await client.predict("fares", ROW)
        assert inferred(servers)[1] == before[1]
        servers[1].is_healthy = True
        await asyncio.to_thread(until, lambda: not any(place.failures for place in places.all))


async def test_a_name_without_addresses_is_told_asyncio():
    async with AsyncClient("dns:///no-such-host.invalid:1", retries=0) as client:
        with pytest.raises(ServerUnavailableError, match="failed to find a server"):
            await client.predict("fares", ROW)


def test_grpcio_spreads_calls_over_a_name_by_itself():
    client = Client("dns:///localhost:1", transport="grpcio")
    assert not isinstance(client._calls, BalancedCalls)
    assert any("round_robin" in str(value) for _, value in client._options("dns:///localhost:1"))
    client.close()


def test_one_address_goes_the_short_way(servers):
    with Client(servers[0].address) as client:
        assert not isinstance(client._calls, BalancedCalls)


def test_numbers_are_found_once_each():
    assert numbers("127.0.0.1", 1) == ["127.0.0.1"]
