from collections.abc import Iterator

import pytest

from tests.bench.load.echo_server import Echo, serving


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def address(echo: Echo) -> Iterator[str]:
    with serving(echo) as found:
        yield found
