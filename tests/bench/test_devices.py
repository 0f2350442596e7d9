from pathlib import Path

import numpy as np
import pytest

from bench import devices, models
from bench.devices import Found
from bench.networks import Measured, table
from penstock_server.batching.cost import Cost
from penstock_server.models.execution import CPU, ExecutionSettings

SMALL = Measured("perceptron", lambda: models.mlp(layers=(30, 8, 1)), table, (1, 8, 64, 256, 4096))


@pytest.mark.long  # it measures
def test_a_version_is_measured_as_a_server_loads_it(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(SMALL.make())
    found = devices.measured(SMALL, tmp_path, ExecutionSettings(), 0.01)
    assert all(took_s is not None and 0 < took_s < 1 for took_s in found.times_s)
    assert found.answers.shape == (64, 1)
    assert found.batch_rows >= 64
    assert "cuda" in devices.under_limit(SMALL, tmp_path, "cuda", 64)


def test_the_table_has_both_and_their_difference() -> None:
    cpu = Found(
        "onnxruntime",
        256,
        (1e-4, 1e-4, 1e-3, 1e-2, 0.1),
        (1e-4, 1e-4, 1e-3, 1e-2, 0.1),
        Cost(1e-4, 1e-5),
        np.array([1.0, -2.0]),
    )
    cuda = Found(
        "onnxruntime on cuda: why",
        4096,
        (1e-4, 1e-4, 1e-4, 2e-4, None),
        (1e-3, 1e-3, 1e-3, 1e-3, None),
        Cost(1e-4, 1e-7),
        np.array([1.0, -2.001]),
    )
    table = devices.table_of(SMALL, "cuda", {CPU: cpu, "cuda": cuda})
    assert "cuda: onnxruntime on cuda: why; batches of up to 4,096 rows" in table
    assert "answers differ by up to 5.0e-04" in table
    measured, changed = [line.split() for line in table.splitlines() if line.startswith(("  cuda  ", "  cuda, size"))]
    assert measured[1:] == ["100", "100", "100", "200", "-"]
    assert changed[1:] == ["size", "changed", "1,000", "1,000", "1,000", "1,000", "-"]
