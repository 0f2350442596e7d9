"""LightGBM's and XGBoost's scikit-learn estimators for skl2onnx, through the converters of onnxmltools.

Decides which classes are known. `convert` calls it before it converts; nothing is imported unless such an estimator is there.
"""

import importlib
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from penstock_server.errors import UnsupportedError

_PACKAGES: Final = {"lightgbm": ("LGBM", "LightGbm"), "xgboost": ("XGB", "XGBoost")}
"""For each package how its classes' names begin, and what onnxmltools calls it."""


def register(estimator: Any) -> None:
    """Makes the estimators of these packages known to skl2onnx, if this is one or ends in one.

    Raises:
        UnsupportedError: it is one, and onnxmltools is not installed.
    """
    for each in _within(estimator):
        package = type(each).__module__.partition(".")[0]
        if package in _PACKAGES:
            _register_package(package)


def _within(estimator: Any) -> Iterator[Any]:
    """The estimator and those that it holds."""
    yield estimator
    held = [step for _, step in getattr(estimator, "steps", ())]
    fitted = getattr(estimator, "estimators_", ())
    held += list(fitted) if isinstance(fitted, list | tuple) else []
    for inner in held:
        yield from _within(inner)


@cache
def _register_package(package: str) -> None:
    from skl2onnx import update_registered_converter
    from skl2onnx.common import shape_calculator as shapes

    prefix, alias = _PACKAGES[package]
    try:
        found = importlib.import_module(f"onnxmltools.convert.{package}.operator_converters.{alias}")
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"estimators of {package} need onnxmltools, which is not installed; run: pip install onnxmltools"
        ) from error
    library = importlib.import_module(package)
    convert = getattr(found, f"convert_{package}")
    for kind, shape, options in (
        (
            "Classifier",
            shapes.calculate_linear_classifier_output_shapes,
            {"nocl": [True, False], "zipmap": [True, False]},
        ),
        ("Regressor", shapes.calculate_linear_regressor_output_shapes, {"split": None}),
    ):
        name = f"{prefix}{kind}"
        update_registered_converter(getattr(library, name), f"{alias}{name}", shape, convert, options=options)
