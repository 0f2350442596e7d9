"""Says of an MLflow model that no server runs what it is, and what to do, before the rest of it is fetched."""

from pathlib import Path
from typing import Any, Final

from penstock_server.errors import InvalidInputError

PENSTOCK: Final = "penstock"
"""The flavour of a whole pipeline that Penstock runs in Python."""
_MODEL: Final = "MLmodel"
_MAX_BYTES: Final = 1024 * 1024
_NAMES: Final = {
    "sklearn": "a scikit-learn",
    "xgboost": "an XGBoost",
    "lightgbm": "a LightGBM",
    "catboost": "a CatBoost",
    "pytorch": "a PyTorch",
    "tensorflow": "a TensorFlow",
    "keras": "a Keras",
    "transformers": "a Transformers",
    "sentence_transformers": "a Sentence Transformers",
    "spark": "a Spark",
    "statsmodels": "a statsmodels",
    "prophet": "a Prophet",
    "langchain": "a LangChain",
    "openai": "an OpenAI",
}
_PUBLISHED: Final = {"sklearn", "xgboost", "lightgbm"}
"""What `penstock publish` turns into ONNX."""


def check_is_onnx(folder: Path, model: str) -> None:
    """Checks that the MLflow model in `folder` has the ONNX flavour, or Penstock's own, as far as its `MLmodel` says.

    A folder without `MLmodel` may be a plain graph, and is judged by its `model.onnx` later.

    Raises:
        InvalidInputError: it has other flavours; says which, and how to publish it.
    """
    flavours = _flavours(folder)
    if flavours is None or flavours & {"onnx", PENSTOCK}:
        return
    kind = next((name for name in flavours if name in _NAMES), None)
    if kind is None:
        others = ", ".join(sorted(flavours - {"python_function"})[:5]) or "python_function"
        raise InvalidInputError(
            f"it is no ONNX model (its flavours: {others[:200]}); log it with mlflow.onnx.log_model, or run "
            f"`penstock publish --help`"
        )
    advice = (
        f"run `penstock publish` with the fitted estimator to register it as {model!r} in ONNX"
        if kind in _PUBLISHED
        else "convert it to ONNX and log it with mlflow.onnx.log_model"
    )
    raise InvalidInputError(f"it is {_NAMES[kind]} model and not ONNX; {advice}")


def _flavours(folder: Path) -> set[str] | None:
    path = folder / _MODEL
    if not path.is_file():
        return None
    with path.open("rb") as file:
        raw = file.read(_MAX_BYTES + 1)
    if len(raw) > _MAX_BYTES:
        raise InvalidInputError(f"its {_MODEL} has more than {_MAX_BYTES:,} bytes; expected a description of a model")
    import yaml

    try:
        found: Any = yaml.load(raw, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 - safe loaders
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InvalidInputError(f"its {_MODEL} is not YAML; expected MLflow's description of a model") from error
    listed = found.get("flavors") if isinstance(found, dict) else None
    return {str(name) for name in listed} if isinstance(listed, dict) else None
