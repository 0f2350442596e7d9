"""How a worker describes to the request log what a version takes and gives."""

import subprocess
import sys
from typing import Any

import pytest

from penstock_server.models.signature import Signature, TensorSpec
from penstock_server.prediction.decode import ColumnDecoder, TensorDecoder
from penstock_server.request_log.segment import LoggedTensor
from penstock_server.worker import _logged_inputs

SPECS = (TensorSpec("x", "FP32", (-1, 1)), TensorSpec("y", "FP64", (-1, 3)), TensorSpec("z", "BYTES", (-1,)))


@pytest.mark.parametrize(
    ("is_batched", "lists"),
    [(True, [False, True, False]), (False, [True, True, True])],
)
def test_plain_graphs(is_batched: bool, lists: list[bool]) -> None:
    decoder = TensorDecoder(Signature(SPECS, SPECS, is_batched))
    expected = [LoggedTensor((spec.name,), spec.datatype, one) for spec, one in zip(SPECS, lists, strict=True)]
    assert list(_logged_inputs(decoder, is_batched)) == expected


def test_columns_lie_as_the_pipeline_takes_them() -> None:
    class Pipeline:
        columns = ("a", "s", "b", "t")
        numbers = ("a", "b")
        strings = ("s", "t")
        required = frozenset[str]()

    pipeline: Any = Pipeline()
    assert _logged_inputs(ColumnDecoder(pipeline), True) == (
        LoggedTensor(("a", "b"), "FP64"),
        LoggedTensor(("s",), "BYTES"),
        LoggedTensor(("t",), "BYTES"),
    )


def test_a_worker_does_not_pay_for_parquet() -> None:
    script = "import sys, penstock_server.worker, penstock_server.app; print('pyarrow' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"
