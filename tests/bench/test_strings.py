import numpy as np
import pytest

from bench import models, strings
from penstock_server.features.pipeline import Pipeline
from penstock_server.models import artifact


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("strings")
    (found / "model.onnx").write_bytes(models.mlp())
    strings.describe(found)
    return found


def test_what_is_expected_of_the_pipeline_is_what_it_does(folder) -> None:
    features = artifact.read(folder).features
    table = strings.table(500, seed=3)
    assert np.isnan(np.array([table[name] for name in strings.NUMBERS])).any()
    assert any(b"new" in table[name] for name in strings.STRINGS)
    np.testing.assert_allclose(Pipeline(features).transform(table), strings.encoded(table), atol=1e-6)


def test_a_published_version_has_a_drift_baseline_for_each_column(folder) -> None:
    names = [column.name for column in artifact.read(folder).baseline.columns]
    assert names == [*strings.NUMBERS, *strings.STRINGS]


def test_requests_carry_one_tensor_per_column() -> None:
    table = strings.table(6, seed=1)
    message = strings.request(table, slice(2, 4))
    assert [tensor.name for tensor in message.inputs] == [*strings.NUMBERS, *strings.STRINGS]
    assert {tuple(tensor.shape) for tensor in message.inputs} == {(2,)}
    assert len(message.raw_input_contents) == 15
    first = table[strings.STRINGS[0]][2]
    assert message.raw_input_contents[10].startswith(len(first).to_bytes(4, "little") + first)
