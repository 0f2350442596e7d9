import pytest

from penstock_server.compiled_models.kernel_set import KERNELS
from penstock_server.kernels import compiled


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    compiled.ensure_compiled(KERNELS)
