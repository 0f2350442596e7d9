"""What the models of the conformance suite answer, in numpy, and the command line of the servers that have them."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_conformance.contract import FIXED, PICK, SUM, VERSIONS, Model

_TABLE: Final = np.array([10, 20, 30, 40], np.int64)


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a server listens."""

    grpc: int
    http: int
    metrics: int


def ports() -> Ports:
    """The ports of the command line."""
    parser = argparse.ArgumentParser()
    for name in ("grpc", "http", "metrics"):
        parser.add_argument(f"--{name}", type=int, required=True)
    found = parser.parse_args()
    return Ports(found.grpc, found.http, found.metrics)


def answer(model: Model, version: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The outputs; raises what numpy raises for inputs that the model cannot take, and `IndexError` as the contract says."""
    if model.name == SUM:
        return {"SUM": inputs["A"] + inputs["B"], "DIFFERENCE": inputs["A"] - inputs["B"]}
    values = inputs["INPUT"]
    if model.name == VERSIONS:
        return {"OUTPUT": values + np.float32(version)}
    if model.name == PICK:
        return {"OUTPUT": _TABLE[values]}
    assert model.name == FIXED or model.name.startswith("identity")
    return {"OUTPUT": values}
