import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from penstock_server.drift.fit import fit_baseline
from penstock_server.errors import InvalidInputError
from penstock_server.features.spec.spec import (
    Categories,
    FeatureSpec,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
)
from penstock_server.features.spec.steps import Fill
from penstock_server.models import artifact, golden, version_folder
from tests.examples import examples

COLUMNS = (NumberColumn("delay"), StringColumn("carrier"))
CARRIER = Text("carrier", Categories(("AA", "UA")))
SPEC = FeatureSpec(COLUMNS, Join((Take(("delay",), (Fill((0.0,)),)), CARRIER)))
TABLE = {
    "delay": np.arange(200, dtype=np.float64),
    "carrier": np.array(["AA", "UA"] * 100, dtype=object),
}
BASELINE = fit_baseline(SPEC, TABLE)
GOLDEN = golden.make({name: column[:3] for name, column in TABLE.items()}, {"label": np.array([0, 1, 0])})
WHEN = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
def plain(tmp_path: Path, onnx_bytes: bytes) -> Path:
    """An ONNX model as mlflow saves it, without Penstock's files."""
    folder = tmp_path / "version"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(onnx_bytes)
    (folder / "MLmodel").write_text("flavors: {}")
    return folder


@pytest.fixture
def whole(plain: Path) -> Path:
    """A version with everything beside the model."""
    (plain / "model.onnx.data").write_bytes(b"weights")
    artifact.write(
        plain,
        features=SPEC,
        baseline=BASELINE,
        golden=GOLDEN,
        class_output="label",
        classes=["no", "yes"],
        created=WHEN,
    )
    return plain


def test_a_plain_model_is_a_version(plain: Path) -> None:
    found = artifact.read(plain)
    assert (found.path, found.model_path) == (plain, plain / "model.onnx")
    assert (found.manifest, found.features, found.baseline, found.golden) == (None, None, None, None)


def test_what_is_written_is_read(whole: Path) -> None:
    found = artifact.read(whole)
    assert (found.features, found.baseline, found.golden) == (SPEC, BASELINE, GOLDEN)
    assert found.manifest is not None
    assert found.manifest.classes == ("no", "yes")
    assert found.manifest.class_output == "label"
    assert found.manifest.created == WHEN
    assert set(found.manifest.files) == {
        "model.onnx",
        "model.onnx.data",
        "penstock/features.json",
        "penstock/baseline.json",
        "penstock/golden.json",
    }


def test_a_manifest_is_enough(plain: Path) -> None:
    found = artifact.write(plain)
    assert found.manifest is not None
    assert set(found.manifest.files) == {"model.onnx"}
    assert found.features is None


def test_writing_again_leaves_nothing_of_before(whole: Path) -> None:
    assert artifact.write(whole).features is None
    assert not (whole / "penstock" / "features.json").exists()


def _remove_from_manifest(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / artifact.MANIFEST
        content = json.loads(path.read_text())
        del content["files"][name]
        path.write_text(json.dumps(content))

    return change


def _add_to_manifest(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / artifact.MANIFEST
        content = json.loads(path.read_text())
        content["files"][name] = version_folder.digest_of(b"")
        path.write_text(json.dumps(content))

    return change


def _rewrite(name: str, content: bytes) -> Callable[[Path], object]:
    """Replaces a file and its digest: damage that only understanding can find."""

    def change(folder: Path) -> None:
        path = folder / artifact.MANIFEST
        manifest = json.loads(path.read_text())
        manifest["files"][name] = version_folder.digest_of(content)
        (folder / name).write_bytes(content)
        path.write_text(json.dumps(manifest))

    return change


def _link_out(folder: Path) -> None:
    (folder / "model.onnx").rename(folder.parent / "elsewhere.onnx")
    (folder / "model.onnx").symlink_to("../elsewhere.onnx")


DAMAGES: list[tuple[str, Callable[[Path], object]]] = [
    ("'model.onnx' is missing", lambda folder: (folder / "model.onnx").unlink()),
    ("'model.onnx' has 0 bytes", lambda folder: (folder / "model.onnx").write_bytes(b"")),
    ("'model.onnx' has changed", lambda folder: (folder / "model.onnx").write_bytes(b"other")),
    ("'model.onnx' is a link that leaves", _link_out),
    ("'model.onnx.data' has changed", lambda folder: (folder / "model.onnx.data").write_bytes(b"other")),
    ("'model.onnx.data' is missing", lambda folder: (folder / "model.onnx.data").unlink()),
    ("'penstock/features.json' has changed", lambda folder: (folder / artifact.FEATURES).write_text("{}")),
    ("'penstock/golden.json' is missing", lambda folder: (folder / artifact.GOLDEN).unlink()),
    ("there is no penstock/manifest.json", lambda folder: (folder / artifact.MANIFEST).unlink()),
    ("'penstock/manifest.json': not the expected JSON", lambda folder: (folder / artifact.MANIFEST).write_text("{")),
    ("'penstock/manifest.json': format is 2", lambda folder: (folder / artifact.MANIFEST).write_text('{"format":2}')),
    ("no digest of model.onnx", _remove_from_manifest("model.onnx")),
    ("'penstock/golden.json' is there, but penstock/manifest.json", _remove_from_manifest(artifact.GOLDEN)),
    ("'../outside' is refused", _add_to_manifest("../outside")),
    ("'absent' is missing", _add_to_manifest("absent")),
    ("'penstock/features.json': .*required field", _rewrite(artifact.FEATURES, b"{}")),
    (
        "'penstock/golden.json': there are no inputs",
        _rewrite(artifact.GOLDEN, b'{"format":1,"inputs":{},"outputs":{}}'),
    ),
    ("'penstock/baseline.json': ", _rewrite(artifact.BASELINE, b'{"format":1}')),
]


@pytest.mark.parametrize(("said", "damage"), DAMAGES, ids=[said for said, _ in DAMAGES])
def test_every_damage_is_named(said: str, damage: Callable[[Path], object], whole: Path) -> None:
    damage(whole)
    with pytest.raises(InvalidInputError, match=said):
        artifact.read(whole)


def test_a_baseline_of_other_features_is_refused(plain: Path) -> None:
    other = FeatureSpec(COLUMNS, Join((Take(("delay",)), CARRIER)))
    with pytest.raises(InvalidInputError, match=r"'penstock/baseline.json': "):
        artifact.write(plain, features=other, baseline=BASELINE)


def test_a_baseline_needs_features(plain: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"comes without penstock/features.json"):
        artifact.write(plain, baseline=BASELINE)


def test_too_large_a_part_is_refused(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifact, "MAX_JSON_BYTES", 10)
    with pytest.raises(InvalidInputError, match=r"'penstock/manifest.json' is too large; expected at most 10 bytes"):
        artifact.read(whole)


def test_a_folder_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"'model.onnx' is missing"):
        artifact.read(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match=r"'model.onnx' is missing"):
        artifact.write(tmp_path)


parts = st.sampled_from([artifact.FEATURES, artifact.BASELINE, artifact.GOLDEN])


@given(name=parts, content=st.binary(max_size=200) | st.just(b"[" * 10_000))
@examples(50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_part_raises_anything_else(name: str, content: bytes, whole: Path) -> None:
    _rewrite(name, content)(whole)
    with pytest.raises(InvalidInputError, match="file 'penstock/"):
        artifact.read(whole)


@given(content=st.binary(max_size=200))
@examples(50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_manifest_raises_anything_else(content: bytes, whole: Path) -> None:
    (whole / artifact.MANIFEST).write_bytes(content)
    with pytest.raises(InvalidInputError, match=r"file 'penstock/manifest.json': "):
        artifact.read(whole)


@pytest.mark.long
def test_what_mlflow_saves_is_read_and_still_loads(tmp_path: Path, onnx_bytes: bytes) -> None:
    import mlflow.onnx
    import onnx

    folder = tmp_path / "saved"
    mlflow.onnx.save_model(onnx.load_from_string(onnx_bytes), folder, pip_requirements=["onnxruntime"])
    artifact.write(folder, features=SPEC)
    assert artifact.read(folder).features == SPEC
    assert mlflow.onnx.load_model(str(folder)).graph.input


def test_weights_that_mlflow_keeps_outside_the_graph_are_covered(tmp_path: Path) -> None:
    import mlflow.onnx
    import onnx

    weights = onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 64])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None, 64])],
        [weights],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    folder = tmp_path / "saved"
    mlflow.onnx.save_model(model, folder, pip_requirements=["onnxruntime"])
    found = artifact.write(folder)
    assert found.manifest is not None
    (data,) = set(found.manifest.files) - {"model.onnx"}
    assert (folder / data).stat().st_size >= 64 * 64 * 4
