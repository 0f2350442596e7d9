"""A published version on disk: an MLflow model, and the files that Penstock adds to it.

    MLmodel                    MLflow's description; its signature may name the columns of the model's one matrix
    model.onnx                 as `mlflow.onnx.save_model` writes it, perhaps with external data in further files
    pipeline.skops, .pkl       instead of it, a whole pipeline that could not be compiled
    penstock/python.json       how such a pipeline is loaded and what it answers with (`python.description`)
    penstock/manifest.json     digests of the files, and the classes
    penstock/features.json     the fitted feature specification
    penstock/baseline.json     the reference that drift is measured against
    penstock/golden.json       sample requests with their expected answers
    penstock/explanation.bin   what attributions are computed from, or why there are none
    penstock/importance.json   how much each raw column matters to the model

Beside the versions of a folder may be Triton's `config.pbtxt` (`triton_config`), which names the model's file if it is another.

This module decides which versions are sound. The supervisor calls `read` after it fetched a version, and every worker before
it loads one; the tools call `write` when they publish. The loader checks that the graph runs and fits the features.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import structlog

from penstock_server.batching.limits import Batching
from penstock_server.drift import baseline as baseline_file
from penstock_server.drift import importance as importance_file
from penstock_server.drift.baseline import Baseline
from penstock_server.drift.importance import Importance
from penstock_server.errors import InvalidInputError
from penstock_server.explain import explanation as explanation_file
from penstock_server.explain.explanation import AnyExplanation
from penstock_server.features.spec import spec as spec_file
from penstock_server.features.spec.spec import FeatureSpec, StringColumn
from penstock_server.models import ensemble, mlmodel, strict_json, triton_config, version_folder
from penstock_server.models import golden as golden_file
from penstock_server.models import manifest as manifest_file
from penstock_server.models.ensemble import Ensemble
from penstock_server.models.golden import Golden
from penstock_server.models.manifest import ClassLabel, GraphOptimization, Manifest
from penstock_server.models.triton_config import TritonConfig
from penstock_server.python import description as description_file
from penstock_server.python.description import Description

log = structlog.get_logger(__name__)

MLMODEL = "MLmodel"
MODEL = "model.onnx"
MANIFEST = manifest_file.NAME
FEATURES = "penstock/features.json"
PYTHON = "penstock/python.json"
BASELINE = "penstock/baseline.json"
GOLDEN = "penstock/golden.json"
EXPLANATION = "penstock/explanation.bin"
IMPORTANCE = "penstock/importance.json"

MAX_JSON_BYTES = 64 * 2**20
# The most that a protobuf message holds; larger graphs keep their weights in external data of any size.
MAX_MODEL_BYTES = 2**31 - 1

_Decoded = TypeVar("_Decoded")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A version whose files are all present, unchanged and valid.

    Attributes:
        path: The version's folder.
        model_path: The model's file in it: a graph, or a pipeline.
        manifest: None for a plain ONNX model, which is served as it is; the parts below are None then too.
        features: From raw columns to the model's input; None where the model takes raw tensors. In front of a pipeline, and
            beside a graph that takes the same columns itself, it only counts them for drift.
        baseline: The reference for drift.
        golden: Requests that must give the same answers before the version is served.
        importance: How much each raw column matters to the model.
        columns: The columns' names in the signature's order; empty where it names none, and where `features` say them.
        python: How the pipeline is run; None where the model is a graph.
        config: What the file beside the model's versions says; None where there is none.
        ensemble: The chain of models that stands in the place of one, whose file is then the folder itself; else None.
    """

    path: Path
    model_path: Path
    manifest: Manifest | None = None
    features: FeatureSpec | None = None
    baseline: Baseline | None = None
    golden: Golden | None = None
    importance: Importance | None = None
    columns: tuple[str, ...] = ()
    python: Description | None = None
    config: TritonConfig | None = None
    ensemble: Ensemble | None = None

    @property
    def threads(self) -> int:
        """Onnxruntime's threads within one operator, where the settings name none."""
        declared = None if self.config is None else self.config.threads
        published = None if self.manifest is None else self.manifest.threads
        return declared or published or 1

    @property
    def graph_optimization(self) -> GraphOptimization:
        """How much onnxruntime may rewrite the graph."""
        return (None if self.manifest is None else self.manifest.graph_optimization) or "all"


def read(folder: Path) -> Artifact:
    """The version in `folder`, with every digest checked.

    Raises:
        InvalidInputError: Something is missing, changed, too large, of an unknown format or outside the folder; the
            sentence names the file, what was wrong, and what was expected.
    """
    config = triton_config.read(folder.parent)
    if (chain := ensemble.read(folder, config)) is not None:
        _refuse_unlisted(folder, listed=(), why="it is an ensemble")
        return Artifact(path=folder, model_path=folder, config=config, ensemble=chain)
    if not version_folder.has(folder, MANIFEST):
        model_path = _model_file(folder, MODEL if config is None else config.model_file)
        _refuse_unlisted(folder, listed=(), why=f"there is no {MANIFEST}")
        return Artifact(path=folder, model_path=model_path, columns=_columns(folder), config=config)
    manifest = _decoded(MANIFEST, manifest_file.decode, _json_bytes(folder, MANIFEST))
    _refuse_unlisted(folder, listed=manifest.files, why=f"{MANIFEST} does not name it")
    raw = {name: _json_bytes(folder, name) for name in _PARTS if name in manifest.files and name != EXPLANATION}
    known = {name: version_folder.digest_of(content) for name, content in raw.items()}
    python = _part(raw, PYTHON, _decode_python)
    name = (MODEL if config is None else config.model_file) if python is None else python.file
    model_path = _model_file(folder, name)
    if name not in manifest.files:
        raise InvalidInputError(f"{MANIFEST} has no digest of {name}; expected one")
    manifest_file.verify(manifest, folder, known=known)
    features = _part(raw, FEATURES, spec_file.decode)
    if python is not None:
        _check_columns(python, features)
    return Artifact(
        path=folder,
        model_path=model_path,
        manifest=manifest,
        features=features,
        baseline=_part(raw, BASELINE, partial(_decode_about, features, baseline_file.decode, baseline_file.check)),
        golden=_part(raw, GOLDEN, golden_file.decode),
        importance=_part(
            raw, IMPORTANCE, partial(_decode_about, features, importance_file.decode, importance_file.check)
        ),
        columns=_columns(folder) if features is None else (),
        python=python,
        config=config,
    )


def is_ensemble(folder: Path) -> bool:
    """Whether the version in `folder` is a chain of models; `InvalidInputError` as `read` raises it."""
    return ensemble.read(folder, triton_config.read(folder.parent)) is not None


def read_explanation(artifact: Artifact) -> AnyExplanation | None:
    """What a version's attributions are computed from, checked; None where none was published.

    It may be large, and only those who compute with it need it, so `read` checks its digest alone.

    Raises:
        InvalidInputError: It has changed since, or does not fit the features.
    """
    if artifact.manifest is None or EXPLANATION not in artifact.manifest.files:
        return None
    content = version_folder.read_bytes(artifact.path, EXPLANATION, max_bytes=explanation_file.MAX_BYTES)
    if version_folder.digest_of(content) != artifact.manifest.files[EXPLANATION]:
        raise InvalidInputError(f"file {EXPLANATION!r} has changed since it was published")
    return _decoded(
        EXPLANATION, partial(_decode_about, artifact.features, explanation_file.decode, explanation_file.check), content
    )


def write(
    folder: Path,
    *,
    python: Description | None = None,
    features: FeatureSpec | None = None,
    baseline: Baseline | None = None,
    golden: Golden | None = None,
    explanation: AnyExplanation | None = None,
    importance: Importance | None = None,
    class_output: str | None = None,
    classes: Sequence[ClassLabel] | None = None,
    batching: Batching | None = None,
    threads: int | None = None,
    graph_optimization: GraphOptimization | None = None,
    created: datetime | None = None,
) -> Artifact:
    """Adds Penstock's files to a folder that holds the model, replacing former ones, and reads the result back.

    Args:
        folder: The version's folder; no file that decides answers may be changed in it afterwards.
        python: How the pipeline in it is run; None where it holds `model.onnx`. It needs `features`.
        features: The fitted feature specification.
        baseline: The reference for drift; needs `features`.
        golden: Requests with their expected answers.
        explanation: What attributions are computed from, or why there are none; needs `features`.
        importance: How much each raw column matters; needs `features`.
        class_output: The model output that holds the predicted class.
        classes: The classes' labels in the order of the model's probabilities.
        batching: "rows" or "request": whether a server may batch requests together; None leaves it to its probe.
        threads: onnxruntime's threads within one operator; None leaves them to the settings.
        graph_optimization: how much onnxruntime rewrites the graph; None for all that it can.
        created: The moment of publishing, with a time zone; None is now.

    Raises:
        InvalidInputError: The result is not a version that `read` accepts.
    """
    _model_file(folder, MODEL if python is None else python.file)
    parts = {
        PYTHON: None if python is None else description_file.encode(python),
        FEATURES: None if features is None else spec_file.encode(features),
        BASELINE: None if baseline is None else baseline_file.encode(baseline),
        GOLDEN: None if golden is None else golden_file.encode(golden),
        EXPLANATION: None if explanation is None else explanation_file.encode(explanation),
        IMPORTANCE: None if importance is None else importance_file.encode(importance),
    }
    for name, content in parts.items():
        _put(folder / name, content)
    manifest = Manifest(
        files=manifest_file.digests(folder, besides=(MANIFEST,)),
        created=created or datetime.now(UTC),
        class_output=class_output,
        classes=None if classes is None else tuple(classes),
        batching=batching,
        threads=threads,
        graph_optimization=graph_optimization,
    )
    _put(folder / MANIFEST, manifest_file.encode(manifest))
    return read(folder)


_PARTS = (PYTHON, FEATURES, BASELINE, GOLDEN, EXPLANATION, IMPORTANCE)


def _model_file(folder: Path, name: str = MODEL) -> Path:
    path = version_folder.locate(folder, name)
    size_bytes = path.stat().st_size
    if not 0 < size_bytes <= MAX_MODEL_BYTES:
        raise InvalidInputError(f"file {name!r} has {size_bytes:,} bytes; expected 1 to {MAX_MODEL_BYTES:,}")
    return path


def _refuse_unlisted(folder: Path, *, listed: Sequence[str] | Mapping[str, str], why: str) -> None:
    """Refuses parts that no manifest names: ignoring features silently would give wrong answers."""
    for name in _PARTS:
        if name not in listed and version_folder.has(folder, name):
            raise InvalidInputError(f"file {name!r} is there, but {why}; expected a digest of it there")


def _columns(folder: Path) -> tuple[str, ...]:
    """The columns' names; none where MLflow's file is missing or unsound, since any MLflow client may have written it."""
    if not version_folder.has(folder, MLMODEL):
        return ()
    try:
        return mlmodel.column_names(version_folder.read_bytes(folder, MLMODEL, max_bytes=mlmodel.MAX_BYTES))
    except InvalidInputError as error:
        log.warning("columns have no names", folder=str(folder), reason=f"file {MLMODEL!r}: {error}")
        return ()


def _json_bytes(folder: Path, name: str) -> bytes:
    return version_folder.read_bytes(folder, name, max_bytes=MAX_JSON_BYTES)


def _part(raw: Mapping[str, bytes], name: str, decode: Callable[[bytes], _Decoded]) -> _Decoded | None:
    return _decoded(name, decode, raw[name]) if name in raw else None


def _decode_about(
    features: FeatureSpec | None,
    decode: Callable[[bytes], _Decoded],
    check: Callable[[_Decoded, FeatureSpec], None],
    content: bytes,
) -> _Decoded:
    """A part that is about the features, checked against them."""
    if features is None:
        raise InvalidInputError(f"it comes without {FEATURES}; expected both, or neither")
    part = decode(content)
    check(part, features)
    return part


def _decode_python(content: bytes) -> Description:
    return strict_json.decode(content, description_file.DECODER)


def _check_columns(python: Description, features: FeatureSpec | None) -> None:
    """Checks that requests are decoded into the columns that the pipeline takes."""
    if features is None:
        raise InvalidInputError(f"{PYTHON} comes without {FEATURES}; expected both")
    expected = [(column.name, column.kind == "text") for column in python.columns]
    if [(column.name, isinstance(column, StringColumn)) for column in features.columns] != expected:
        raise InvalidInputError(f"{PYTHON} and {FEATURES} name other columns; expected the same in both")


def _decoded(name: str, decode: Callable[[bytes], _Decoded], content: bytes) -> _Decoded:
    try:
        return decode(content)
    except InvalidInputError as error:
        raise InvalidInputError(f"file {name!r}: {error}") from error


def _put(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
