"""All cases of the suite, by wire."""

from penstock_conformance import grpc_cases
from penstock_conformance.case import Case


def grpc() -> list[Case]:
    """The cases of gRPC."""
    return grpc_cases.cases()
