import numpy as np
import onnxruntime as ort
import pytest

from bench import models


@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        pytest.param("tabular", {"label": [5], "probabilities": [5, 2]}, marks=[pytest.mark.slow, pytest.mark.long]),
        ("mlp", {"scores": [5, 16]}),
        ("slow", {"scores": [5, 256]}),
    ],
)
def test_models_are_the_same_each_time_and_answer_any_number_of_rows(name, outputs, tmp_path) -> None:
    (file,) = models.write(tmp_path / "a", {name}).values()
    again = models.write(tmp_path / "b", {name})
    assert file == tmp_path / "a" / name / "1" / "model.onnx"
    assert file.read_bytes() == again[name].read_bytes()
    session = ort.InferenceSession(str(file))
    answers = session.run(list(outputs), {models.INPUT: models.sample(name, rows=5)})
    assert [list(answer.shape) for answer in answers] == list(outputs.values())


def test_copies_of_a_model_are_the_same_file(tmp_path) -> None:
    names = models.copies("mlp", 3)
    assert names == ("mlp-000", "mlp-001", "mlp-002")
    assert models.copies("wide-10", 1) == ("wide-10",)
    assert {models.kind(name) for name in names} == {"mlp"}
    assert models.kind("wide-1000") == "wide-1000"
    files = models.write(tmp_path, set(names))
    assert len({file.read_bytes() for file in files.values()}) == 1


def test_another_seed_gives_another_model() -> None:
    assert models.tabular(0, columns=4) != models.tabular(1, columns=4)


def test_samples_repeat_with_their_seed() -> None:
    first = models.sample("tabular", rows=3)
    assert first.shape == (3, 30)
    assert first.dtype == np.float32
    assert np.array_equal(first, models.sample("tabular", rows=3))
    assert not np.array_equal(first, models.sample("tabular", rows=3, seed=2))
