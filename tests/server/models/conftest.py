"""A version beside which a configuration of Triton's stands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock_server.models.loader import load


@pytest.fixture(scope="session")
def configured(write_onnx: Callable[..., Path]) -> Callable[..., Any]:
    """Loads `y = -x` of rows of two, with a configuration of this text and these files to warm up with.

    The graph tells how many columns `y` has if `is_told`.
    """

    def make(text: str, *, is_told: bool = True, **files: bytes) -> Any:
        path = write_onnx(
            [("Neg", ["x"], ["n"], {}), ("Compress", ["n", "all"], ["y"], {"axis": 1})]
            if not is_told
            else [("Neg", ["x"], ["y"], {})],
            inputs=[("x", "FP32", ["N", 2])],
            outputs=[("y", "FP32", ["N", 2 if is_told else "M"])],
            constants={} if is_told else {"all": np.array([True, True])},
        )
        folder, beside = path.parent / "1", path.parent / "warmup"
        for made in (folder, beside):
            made.mkdir()
        path.rename(folder / "model.onnx")
        (path.parent / "config.pbtxt").write_text(text)
        for name, content in files.items():
            (beside / name).write_bytes(content)
        return load((path.parent.name, "1"), folder, threads=None, max_rows=64)[0]

    return make
