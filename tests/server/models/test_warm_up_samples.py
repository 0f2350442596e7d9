from typing import Any

import numpy as np
import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.models.onnx_model import OnnxModel

WARM = "max_batch_size: 4 model_warmup {{ name: 'w' batch_size: 2 count: 3 inputs {{ key: '{}' value {{ dims: {} {} }} }} }}"


@pytest.mark.parametrize("data", ["zero_data: true", "random_data: true", "input_data_file: 'raw'"])
def test_a_version_is_warmed_up_with_what_the_file_describes(
    configured: Any, data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[tuple[int, bytes]] = []
    run = OnnxModel.run

    def noted(self: OnnxModel, feeds: Any) -> Any:
        runs.append((len(feeds["x"]), feeds["x"].tobytes()))
        return run(self, feeds)

    monkeypatch.setattr(OnnxModel, "run", noted)
    raw = np.arange(4, dtype=np.float32).tobytes()
    configured(WARM.format("x", 2, data), raw=raw)
    alike = [content for rows, content in runs if rows == 2 and (data[:4] != "inpu" or content == raw)]
    assert len(alike) >= 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (WARM.format("z", 2, "zero_data: true"), "it has inputs 'z'; expected 'x'"),
        (WARM.format("x", 3, "zero_data: true"), r"input 'x' has shape \[2, 3\], expected \[-1, 2\]"),
        (WARM.format("x", 2, ""), "input 'x' has no data"),
        (WARM.format("x", 2, "input_data_file: 'none'"), "file 'none' is missing"),
        (WARM.format("x", 2, "input_data_file: '../1/model.onnx'"), "file name '../1/model.onnx' is refused"),
        (WARM.format("x", 2, "input_data_file: 'raw'"), "file 'raw' has 3 bytes, expected 16"),
        (WARM.format("x", 2, "zero_data: true").replace("count: 3", "count: 4000"), "expected at most"),
    ],
)
def test_a_sample_that_does_not_fit_refuses_the_version(configured: Any, text: str, words: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^config.pbtxt: model_warmup 'w': .*{words}"):
        configured(text, raw=b"abc")
