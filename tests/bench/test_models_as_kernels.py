from collections.abc import Callable

import pytest

from bench import models, models_as_kernels
from penstock_server.compiled_models.kernel_set import KERNELS
from penstock_server.kernels import compiled


@pytest.mark.long  # it trains models, and measures them
def test_both_answer_alike_and_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled.ensure_compiled(KERNELS)
    graphs: dict[str, Callable[[], bytes]] = {"trees": models.tabular}
    monkeypatch.setattr(models_as_kernels, "fitted", lambda: graphs)
    (times,) = models_as_kernels.measure(0.001).values()
    assert all(0 < seconds < 10 for pair in times for seconds in pair)


def test_the_table_has_the_ratio() -> None:
    table = models_as_kernels.table_of({"trees": [(1e-6, 5e-6), (2e-6, 2e-5)]})
    assert "1.0, not 5.0 (5.0x)" in table
    assert "(10.0x)" in table
