"""Every example in the client's docstrings, run; those that ask a server ask the fake one."""

import doctest
import importlib
import pkgutil

import pytest

import penstock_client
from penstock_client import Client

MODULES = [
    module.name for module in pkgutil.walk_packages(penstock_client.__path__, "penstock_client.") if not module.ispkg
]
WITH_EXAMPLES = {
    "aio",
    "balance",
    "balanced",
    "channel",
    "client",
    "errors",
    "headers",
    "http2.frames",
    "http2.hpack",
    "http2.target",
    "rest.calls",
    "rest.messages",
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
    assert (results.attempted > 0) == (name.removeprefix("penstock_client.") in WITH_EXAMPLES)
