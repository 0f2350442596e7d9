import numpy as np

from bench import models
from bench.servers.onnx_session import OneThreadModel


def test_the_outputs_by_name_have_one_entry_per_row(tmp_path) -> None:
    model = OneThreadModel(models.write(tmp_path, {"wide-10"})["wide-10"])
    assert (model.input, model.columns, model.outputs) == (models.INPUT, 10, ["label", "probabilities"])
    found = model.run(models.sample("wide-10", rows=5))
    assert {name: (array.shape, array.dtype) for name, array in found.items()} == {
        "label": ((5,), np.int64),
        "probabilities": ((5, 2), np.float32),
    }
