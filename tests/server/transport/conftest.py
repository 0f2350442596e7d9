from collections.abc import Iterator

import grpc
import pytest

from penstock_server.kernels import compiled
from penstock_server.transport.kernel_set import KERNELS
from tests.server.transport.http2_peer import TIMEOUT_S, Peer
from tests.server.transport.test_transports import Service, running, unary


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    """The native transport serves where its kernels are compiled, and gives way where they are not."""
    compiled.ensure_compiled(KERNELS)


@pytest.fixture(scope="module")
def native_service() -> Service:
    return Service()


@pytest.fixture(scope="module")
def native_address(native_service: Service) -> Iterator[str]:
    """Of a native transport that plays all cases of a module."""
    with running("native", native_service) as (_, address):
        yield address


@pytest.fixture(scope="module")
def bystander(native_address: str) -> Iterator[grpc.Channel]:
    """Another connection, from before the first case to after the last."""
    with grpc.insecure_channel(native_address) as channel:
        yield channel


@pytest.fixture
def peer(native_address: str, bystander: grpc.Channel) -> Iterator[Peer]:
    """A connection for one case; afterwards the other one must still be served."""
    with Peer(native_address) as opened:
        opened.shake_hands()
        yield opened
    assert unary(bystander, "Echo")(b"undisturbed", timeout=TIMEOUT_S) == b"undisturbed"
