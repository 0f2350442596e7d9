import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import InvalidInputError
from penstock_server.models import artifact, mlmodel


def mlmodel_of(inputs: Any) -> bytes:
    return json.dumps({"flavors": {"onnx": {"data": "model.onnx"}}, "signature": {"inputs": inputs}}).encode()


def column(name: Any, kind: str = "double") -> dict[str, Any]:
    return {"name": name, "type": kind, "required": True}


def test_columns_are_named_as_mlflow_writes_them(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    from mlflow.models import Model, infer_signature

    frame = pd.DataFrame({"sepal length": [1.0], "é": [2], "town": ["a"]})
    Model(signature=infer_signature(frame, [1])).save(str(tmp_path / "MLmodel"))
    assert mlmodel.column_names((tmp_path / "MLmodel").read_bytes()) == ("sepal length", "é", "town")


def test_only_the_signature_is_read_where_it_can_be_told() -> None:
    inputs = 'signature:\n  inputs: \'[{"name": "a", "type":\n    "double"}]\'\n\n  params: null\n'
    for before, after in (("", ""), ("flavors:\n  x: [1, 2\n", "y: }"), ("a: 1\n", "b:\n- 1\n")):
        assert mlmodel.column_names((before + inputs + after).encode()) == ("a",)
    assert mlmodel.column_names((inputs + "x: {\nsignature: 1}").encode()) == ("a",)
    with pytest.raises(InvalidInputError, match="the key 'signature' appears twice"):
        mlmodel.column_names((inputs * 2).encode())


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{}", b"flavors: {}", b"signature: null", b"signature: {inputs: null}", b"signature: {inputs: 'null'}",
        b"signature: [1]", b"[]", b"text", mlmodel_of("[]"), mlmodel_of('[{"type": "double"}]'), mlmodel_of("5"),
        mlmodel_of(json.dumps([{"name": "X", "type": "tensor", "tensor-spec": {"dtype": "float32", "shape": [-1, 4]}}])),
        mlmodel_of(json.dumps([column("a"), {"type": "double"}])), mlmodel_of(json.dumps([column(5)])),
    ],
)  # fmt: skip
def test_no_names_are_none(content: bytes) -> None:
    assert mlmodel.column_names(content) == ()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xff", "its signature cannot be read"),
        (b"a: &x [1]\nb: *x", "it has an alias"),
        (b"!!python/object:os.system {}", "its signature cannot be read"),
        (b"a" * 2_000_000, "expected at most"),
        (mlmodel_of("[" * 100_000), "its signature cannot be read"),
        (mlmodel_of("{not json"), "its signature cannot be read"),
        (mlmodel_of(json.dumps([column("a"), column("a")])), "names the column 'a' twice"),
        (mlmodel_of(json.dumps([column("")])), "a name that is no text of 1 to 1,024 bytes"),
        (mlmodel_of(json.dumps([column("\ud800")])), "a name that is no text"),
        (mlmodel_of(json.dumps([column("n" * 2000)])), "a name that is no text"),
        (mlmodel_of(json.dumps([{"name": f"c{at}"} for at in range(16_385)])), "names 16,385 columns"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(content: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        mlmodel.column_names(content)


@given(st.binary())
def test_no_bytes_raise_anything_else(content: bytes) -> None:
    with contextlib.suppress(InvalidInputError):
        mlmodel.column_names(content)


def test_an_artifact_has_the_names_and_lives_without_them(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"any")
    assert artifact.read(tmp_path).columns == ()
    (tmp_path / "MLmodel").write_bytes(mlmodel_of(json.dumps([column("a"), column("b")])))
    assert artifact.read(tmp_path).columns == ("a", "b")
    assert artifact.write(tmp_path).columns == ("a", "b")
    (tmp_path / "MLmodel").write_bytes(b"a: &x [1]\nb: *x")
    assert artifact.read(tmp_path).columns == ()
