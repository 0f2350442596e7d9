"""A server that keeps the contract as far as a test wants: the fake one, with the models of the suite."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from penstock_client.testing import FakeModel, FakeServer
from penstock_conformance.contract import MODELS, PICK, SUM, VERSIONS, Model


def answer(model: Model, rows: dict[str, Any]) -> dict[str, Any]:
    if model.name == SUM:
        return {"SUM": rows["A"] + rows["B"], "DIFFERENCE": rows["A"] - rows["B"]}
    if model.name == PICK:
        return {"OUTPUT": np.array([10, 20, 30, 40])[rows["INPUT"]]}
    return {"OUTPUT": rows["INPUT"] + np.float32(2) if model.name == VERSIONS else rows["INPUT"]}


def fake_model(model: Model) -> FakeModel:
    return FakeModel(
        lambda rows: answer(model, rows), inputs=model.inputs, outputs=model.outputs, version=model.versions[-1]
    )


@pytest.fixture
def fake() -> Iterator[FakeServer]:
    with FakeServer({name: fake_model(model) for name, model in MODELS.items()}) as server:
        yield server
