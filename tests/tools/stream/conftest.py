"""A version that doubles a number, as answers without a model, and a broker."""

from collections.abc import Iterator

import pytest

from tests.tools.stream.broker import Broker


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as started:
        yield started
