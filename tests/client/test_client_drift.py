import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from penstock import penstock_pb2 as pb
from penstock_client import AsyncClient, Client, ModelNotFoundError, ServerError, UnsupportedError


def drift_state(request: pb.DriftStateRequest, context: grpc.ServicerContext) -> Any:
    if request.model == "unknown":
        context.abort(grpc.StatusCode.NOT_FOUND, "no version of model 'unknown' is loaded")
    if request.model == "broken":
        return b"\xff"
    column = pb.ColumnDrift(name="delay", p_value=0.5)
    version = pb.VersionDrift(model=request.model, version=request.version, columns=[column])
    return pb.DriftStateResponse(versions=[version]).SerializeToString()


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(2))
    handler = grpc.unary_unary_rpc_method_handler(drift_state, pb.DriftStateRequest.FromString)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("penstock.v1.Penstock", {"DriftState": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def asked_async(address: str, *arguments: str) -> Any:
    async def ask() -> Any:
        async with AsyncClient(address) as client:
            return await client.drift_state(*arguments)

    return asyncio.run(ask())


def asked(address: str, *arguments: str) -> Any:
    with Client(address) as client:
        return client.drift_state(*arguments)


@pytest.mark.parametrize("ask", [asked, asked_async])
def test_what_the_server_says_comes_back(address: str, ask: Any) -> None:
    (version,) = ask(address, "m", "@champion").versions
    assert (version.model, version.version, version.columns[0].name) == ("m", "@champion", "delay")
    assert version.columns[0].HasField("p_value")
    assert not version.columns[0].HasField("psi")


@pytest.mark.parametrize(("model", "error"), [("unknown", ModelNotFoundError), ("broken", ServerError)])
def test_refusals_are_the_clients_errors(address: str, model: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"model '{model}' at {address}"):
        asked(address, model)


def test_another_server_says_that_it_cannot(server: Any) -> None:
    with pytest.raises(UnsupportedError):
        asked(server.address)
