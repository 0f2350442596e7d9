"""Models that MLflow keeps already: by `models:/churn@champion`, `models:/churn/3` or `runs:/ID/model`, with their own rows.

They were logged with `mlflow.sklearn`, `mlflow.xgboost` and the like. `files` publishes what is in them as it would from a
file: this module fetches the folder, says what is in it, and gives the estimator and the input example. Nothing of the
model runs before a person agrees, where its format can run code.
"""

import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd

from penstock_server.errors import InvalidInputError, PenstockError, UnavailableError, UnsupportedError, first_line
from penstock_tools.publish.registry import opened
from penstock_tools.sklearn_compiler.load import Agree, load_pipeline

SCHEMES: Final = ("models", "runs")
_ADDRESS: Final = re.compile(r"(models|runs):/+(.+)")
_FLAVOURS: Final = ("onnx", "sklearn", "xgboost", "lightgbm", "catboost")


@dataclass(frozen=True, slots=True)
class LoggedModel:
    """A model in a folder as MLflow writes it.

    Attributes:
        address: where it is from, with its number in place of an alias.
        folder: its files.
        flavour: what `mlflow` module logged it, such as "sklearn".
        options: what that module noted about its files.
    """

    address: str
    folder: Path
    flavour: str
    options: Mapping[str, Any]

    @property
    def onnx_path(self) -> Path:
        """The graph of a model of the ONNX flavour."""
        return self.file(self.options.get("data") or "model.onnx")

    def estimator(self, agree: Agree) -> Any:
        """The fitted estimator.

        Args:
            agree: called with a warning before anything that a harmful file could use.

        Raises:
            InvalidInputError: not agreed to, or it does not load.
            UnsupportedError: a package that it needs is not installed, or it was logged without its estimator.
        """
        if self.options.get("code"):
            # What MLflow itself does: the pipeline's own classes were logged beside it.
            if not agree(f"{self.address} has code of its own, and loading it runs that code."):
                raise InvalidInputError(f"{self.address} was not loaded: that would run its code; --trust agrees")
            sys.path.insert(0, str(self.file(self.options["code"])))
        return _LOADERS[self.flavour](self, agree)

    def example(self) -> pd.DataFrame | None:
        """The rows that were logged as an input example; None where there are none."""
        from mlflow.models import Model

        description = Model.load(str(self.folder))
        if not description.saved_input_example_info:
            return None
        try:
            found = description.load_input_example(str(self.folder))
        except Exception as error:
            # The file may be anything.
            raise InvalidInputError(
                f"the input example of {self.address} does not read: {first_line(error)}; give --sample DATA"
            ) from error
        schema = None if description.signature is None else description.signature.inputs
        return _frame(found, [column.name for column in getattr(schema, "inputs", ())])

    def file(self, name: str) -> Path:
        """One of its files.

        Raises:
            InvalidInputError: there is none of this name in the folder.
        """
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder.resolve()) or not path.exists():
            raise InvalidInputError(f"{self.address} lacks its file {name!r}; it cannot be published")
        return path


def is_address(text: str) -> bool:
    """Whether this names a model that MLflow keeps.

    >>> is_address("models:/churn@champion"), is_address("churn.skops")
    (True, False)
    """
    return text.partition(":")[0] in SCHEMES and _ADDRESS.fullmatch(text) is not None


@contextmanager
def fetched(address: str, registry: str | None) -> Iterator[LoggedModel]:
    """The model at an address, fetched into a folder that is removed afterwards.

    Args:
        address: `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `runs:/RUN/PATH`.
        registry: where it is kept; None for `MLFLOW_TRACKING_URI`, else a local file.

    Raises:
        NotFoundError: there is no such model, version, alias or run.
        UnsupportedError: it was logged with a module that Penstock does not publish from.
        UnavailableError: the registry or the store of its files does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="penstock-") as scratch:
        with opened(registry) as client:
            number = _numbered(client, address)
            folder = _download(client, number, Path(scratch))
        yield described(number, folder)


def _numbered(client: Any, address: str) -> str:
    found = re.fullmatch(r"models:/+([^/@]+)@(.+)", address)
    if found is None:
        return re.sub(r":/+", ":/", address, count=1)
    version = client.get_model_version_by_alias(found[1], found[2])
    return f"models:/{version.name}/{version.version}"


def _download(client: Any, address: str, scratch: Path) -> Path:
    import mlflow
    from mlflow.exceptions import MlflowException

    # The download looks up the registry of the whole process, whatever it is given.
    mlflow.set_registry_uri(client.tracking_uri)
    try:
        return Path(
            mlflow.artifacts.download_artifacts(
                artifact_uri=address, dst_path=str(scratch), tracking_uri=client.tracking_uri
            )
        )
    except (MlflowException, PenstockError):
        raise
    except Exception as error:
        # Each store of artifacts raises its own classes.
        raise UnavailableError(f"the files of {address} cannot be fetched: {first_line(error)}") from error


def described(address: str, folder: Path) -> LoggedModel:
    """The model that MLflow wrote into a folder; the address is what it is called.

    Raises:
        InvalidInputError: MLflow did not write it.
        UnsupportedError: it was logged with a module that Penstock does not publish from.
    """
    from mlflow.models import Model

    try:
        flavours: Mapping[str, Any] = Model.load(str(folder)).flavors
    except Exception as error:
        # MLflow raises anything over a file that it did not write.
        raise InvalidInputError(f"{address} is no model that MLflow logged: {first_line(error)}") from error
    flavour = next((name for name in _FLAVOURS if name in flavours), None)
    if flavour is None:
        others = ", ".join(sorted(set(flavours) - {"python_function"})) or "python_function alone"
        raise UnsupportedError(
            f"{address} was logged as {others}; expected one of {', '.join(_FLAVOURS)}: log the fitted pipeline with "
            "mlflow.sklearn.log_model, or convert the model to ONNX"
        )
    return LoggedModel(address, folder, flavour, flavours[flavour])


def _frame(rows: Any, names: list[str | None]) -> pd.DataFrame:
    if isinstance(rows, pd.DataFrame):
        return rows
    if isinstance(rows, Mapping):
        return pd.DataFrame(dict(rows))
    if hasattr(rows, "toarray"):
        rows = rows.toarray()
    frame = pd.DataFrame(rows)
    frame.columns = pd.Index(
        names if len(names) == frame.shape[1] else [f"feature_{at}" for at in range(frame.shape[1])]
    )
    return frame


def _sklearn(model: LoggedModel, agree: Agree) -> Any:
    path = model.file(model.options.get("pickled_model") or "model.pkl")
    return load_pipeline(path, agree)


def _pickled(model: LoggedModel, agree: Agree) -> None:
    """Asks before MLflow unpickles; native formats run no code."""
    data = str(model.options.get("data", ""))
    if data.endswith((".pkl", ".pickle", ".joblib")) and not agree(
        f"Loading {model.address} runs any code that its {data} holds; load it only if you trust its source."
    ):
        raise InvalidInputError(f"{model.address} was not loaded: that would run its code; --trust agrees")


def _native(package: str, kinds: tuple[str, ...]) -> Callable[[LoggedModel, Agree], Any]:
    def load(model: LoggedModel, agree: Agree) -> Any:
        import importlib

        _pickled(model, agree)
        try:
            estimator = importlib.import_module(f"mlflow.{package}").load_model(str(model.folder))
        except ModuleNotFoundError as error:
            raise UnsupportedError(f"{model.address} needs {error.name}, which is not installed here") from error
        except Exception as error:
            # The library raises its own classes over its own files.
            raise InvalidInputError(f"{model.address} does not load: {first_line(error)}") from error
        if not hasattr(estimator, "get_params"):
            raise UnsupportedError(
                f"{model.address} was logged as a {type(estimator).__name__}, which does not say what its columns and "
                f"classes are; log the fitted {' or '.join(kinds)} instead"
            )
        return estimator

    return load


_LOADERS: Final[dict[str, Callable[[LoggedModel, Agree], Any]]] = {
    "sklearn": _sklearn,
    "xgboost": _native("xgboost", ("XGBClassifier", "XGBRegressor")),
    "lightgbm": _native("lightgbm", ("LGBMClassifier", "LGBMRegressor")),
    "catboost": _native("catboost", ("CatBoostClassifier", "CatBoostRegressor")),
}
