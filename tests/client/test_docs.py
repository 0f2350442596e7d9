"""Every example in the client's docstrings, run; those that ask a server ask the fake one."""

import doctest
import importlib
import pkgutil

import pytest

import penstock_client
from penstock_client import Client

MODULES = [f"penstock_client.{module.name}" for module in pkgutil.iter_modules(penstock_client.__path__)]
WITH_EXAMPLES = {
    "aio",
    "balance",
    "balanced",
    "channel",
    "client",
    "errors",
    "headers",
    "metadata",
    "prediction",
    "retry",
    "rows",
    "steps",
    "tensors",
    "testing",
    "times",
    "values",
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(server, name):
    with Client(server.address) as client:
        results = doctest.testmod(
            importlib.import_module(name),
            extraglobs={"address": server.address, "client": client},
            optionflags=doctest.ELLIPSIS,
        )
    assert results.failed == 0
    assert (results.attempted > 0) == (name.rpartition(".")[2] in WITH_EXAMPLES)
