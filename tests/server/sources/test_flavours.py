from pathlib import Path

import pytest

from penstock_server.errors import InvalidInputError
from penstock_server.sources.flavours import check_is_onnx


@pytest.mark.parametrize(
    "text",
    [
        None,
        "flavors:\n  onnx:\n    data: model.onnx\n  python_function: {}\n",
        "flavors: {onnx: {data: model.onnx}, sklearn: {}}\n",
        "run_id: x\n",
        "[1, 2]",
        "flavors: 5",
    ],
)
def test_what_may_be_onnx_passes(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "MLmodel").write_text(text)
    check_is_onnx(tmp_path, "m")


@pytest.mark.parametrize(
    ("flavours", "said"),
    [
        ("sklearn, python_function", "it is a scikit-learn model and not ONNX; run `penstock publish` with the fitted"),
        ("xgboost", "an XGBoost model and not ONNX; run `penstock publish`"),
        ("pytorch, python_function", "a PyTorch model and not ONNX; convert it to ONNX and log it with mlflow.onnx"),
        ("python_function", r"it is no ONNX model \(its flavours: python_function\)"),
        ("crate, box, python_function", r"its flavours: box, crate\)"),
    ],
)
def test_what_is_not_onnx_is_named_with_what_to_do(flavours: str, said: str, tmp_path: Path) -> None:
    names = ", ".join(f"{name}: {{}}" for name in flavours.split(", "))
    (tmp_path / "MLmodel").write_text(f"flavors: {{{names}}}\n")
    with pytest.raises(InvalidInputError, match=said):
        check_is_onnx(tmp_path, "m")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is not YAML"),
        (b"\xff\xff", "is not YAML"),
        (b"[" * 100_000, "is not YAML"),
        (b"a: !!python/object/apply:os.system [true]", "is not YAML"),
        (b" " * (1024 * 1024 + 1), "has more than 1,048,576 bytes"),
    ],
)
def test_a_description_that_is_none_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_bytes(content)
    with pytest.raises(InvalidInputError, match=said):
        check_is_onnx(tmp_path, "m")
