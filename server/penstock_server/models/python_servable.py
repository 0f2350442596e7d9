"""A loaded version whose whole pipeline runs in a process of its own, behind the same interface as a graph.

Its feature specification only counts the raw columns for drift. The thread that runs it waits; so it never runs on the reactor,
and the watchdog, which looks for runs that hang a worker, does not look at it: `python.sandbox` has limits of its own.
"""

import time
from collections.abc import Callable, MutableSequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.names import VersionKey
from penstock_server.errors import InvalidInputError
from penstock_server.features.pipeline import Pipeline
from penstock_server.models import version_folder
from penstock_server.models.artifact import MAX_MODEL_BYTES, Artifact
from penstock_server.models.onnx_file import OnnxFile
from penstock_server.models.servable import Blocks, Given, Outputs, Servable, Shapes
from penstock_server.models.signature import ANY, Signature, TensorInfo
from penstock_server.python import requirements
from penstock_server.python.description import Description
from penstock_server.python.sandbox import Sandbox
from penstock_server.python.settings import PythonSettings

NOT_ALLOWED: Final = (
    "runs Python, which this server does not allow; where everybody who may register versions is trusted to run code on it, "
    "set allow = true under [python], or serve with --allow-python"
)


_DATATYPES: Final = {"number": "FP64", "time": "INT64", "text": "BYTES"}


class PythonModel:
    """A pipeline in its process.

    Attributes:
        signature: what requests send and get.
        file: of no graph.
        sandbox: the process.
        note: what is worth knowing about how it is run, in one sentence; "" for nothing.
    """

    def __init__(self, key: VersionKey, artifact: Artifact, description: Description, settings: PythonSettings) -> None:
        differing = requirements.differing(description.requirements)
        self.signature = _signature(description)
        self.file = OnnxFile()
        self.sandbox = Sandbox(key, description, _Content(artifact, description.file), settings)
        self.note = "" if differing is None else differing


class PythonServable(Servable):
    """A pipeline in a process of its own."""

    is_elsewhere = True
    model: PythonModel
    pipeline: Pipeline

    def __init__(self, key: VersionKey, artifact: Artifact, model: PythonModel, pipeline: Pipeline) -> None:
        super().__init__(key, artifact, model, pipeline)

    def report_runs(self, running_since_ns: MutableSequence[int] | memoryview) -> None:
        """Shows nothing: no run of it can hang or end the worker, and none must be taken for the cause."""

    def report_ends(self, ended: Callable[[str], None]) -> None:
        self.model.sandbox.on_end = ended

    @property
    def engine(self) -> str:
        """What runs it, and how."""
        return "python: its whole pipeline, in a process of its own"

    @property
    def varies(self) -> str:
        return "it runs Python, of which nothing says that it answers alike each time"

    @property
    def batching_note(self) -> str:
        """What operators need to know: of the libraries' releases, and of how requests are batched."""
        return "; ".join(filter(None, (self.model.note, super().batching_note)))

    def close(self) -> None:
        self.model.sandbox.close()

    def _predict(
        self,
        blocks: Blocks,
        rows: int,
        shapes: Shapes | None,  # noqa: ARG002 - a pipeline's columns have one shape
        cells: NDArray[np.int64] | None,
        given: Given,  # noqa: ARG002 - and no defaults
    ) -> Outputs:
        started = time.perf_counter()
        if cells is not None:
            self.count(blocks, rows, cells)
        counted = time.perf_counter()
        arrays = self.model.sandbox.run(blocks, rows)
        return Outputs(arrays, counted - started, time.perf_counter() - counted)


def python_servable(key: VersionKey, artifact: Artifact, settings: PythonSettings) -> PythonServable:
    """The version, with its process started and its pipeline loaded.

    Raises:
        InvalidInputError: this server runs no Python, lacks a package, has another release of one, or the pipeline does
            not load.
    """
    description = artifact.python
    if description is None or artifact.features is None:
        raise InvalidInputError("the version has no pipeline to run in Python; expected one")
    check(description, settings)
    pipeline = Pipeline(artifact.features, None if artifact.baseline is None else artifact.baseline.cells)
    model = PythonModel(key, artifact, description, settings)
    try:
        model.sandbox.start()
    except BaseException:
        model.sandbox.close()
        raise
    return PythonServable(key, artifact, model, pipeline)


def check(description: Description, settings: PythonSettings) -> None:
    """Checks that this server runs Python, and has what the pipeline needs.

    Raises:
        InvalidInputError: it does not; says what to set or to install.
    """
    if not settings.allow:
        raise InvalidInputError(NOT_ALLOWED)
    if (reason := requirements.missing(description.requirements)) is not None:
        raise InvalidInputError(reason)
    if not settings.any_version and (reason := requirements.differing(description.requirements)) is not None:
        raise InvalidInputError(reason)


class _Content:
    """Reads the pipeline's file at each start of a process, and checks that it is what was published."""

    def __init__(self, artifact: Artifact, name: str) -> None:
        self._artifact = artifact
        self._name = name

    def __call__(self) -> bytes:
        content = version_folder.read_bytes(self._artifact.path, self._name, max_bytes=MAX_MODEL_BYTES)
        manifest = self._artifact.manifest
        if manifest is None or version_folder.digest_of(content) != manifest.files.get(self._name):
            raise InvalidInputError(f"file {self._name!r} has changed since it was published")
        return content


def _signature(description: Description) -> Signature:
    inputs = tuple(TensorInfo(column.name, _DATATYPES[column.kind], (ANY, 1)) for column in description.columns)
    outputs = tuple(
        TensorInfo(output.name, output.datatype, (ANY,) if output.width is None else (ANY, output.width))
        for output in description.outputs
    )
    return Signature(inputs, outputs, is_batched=True)
