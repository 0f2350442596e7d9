from collections.abc import Iterator

import pytest

from tests.client.conftest import ScriptedServer
from tests.client.rest.front import Front


@pytest.fixture(params=[True, False], ids=["binary", "json"])
def front(server: ScriptedServer, request: pytest.FixtureRequest) -> Iterator[Front]:
    front = Front(server, is_binary=request.param)
    yield front
    front.stop()
