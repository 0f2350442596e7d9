"""All cases of the suite, by wire."""

from penstock_conformance import grpc_cases, rest_cases
from penstock_conformance.case import Case


def grpc() -> list[Case]:
    """The cases of gRPC."""
    return grpc_cases.cases()


def rest() -> list[Case]:
    """The cases of REST."""
    return rest_cases.cases()
