"""Publishing what is in files, as the command does: a pipeline with its sample, or an ONNX model with a specification.

Decides by the file's suffix which of the two it is, and what a person is asked and told. The work is `publish`'s and
`pipelines.publishing`'s.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock_server.errors import InvalidInputError
from penstock_server.features.spec.spec import Datatype
from penstock_tools.cli import consent, progress
from penstock_tools.publish import onnx as publishing


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asked for; None for what it did not say."""

    name: str
    file: Path
    sample: Path | None = None
    labels: str | None = None
    features: Path | None = None
    alias: str | None = None
    weight: float | None = None
    registry: str | None = None
    precision: Datatype | None = None
    trust: bool = False


def publish(request: Request) -> None:
    """Registers the file as the model's next version, and says what became of it.

    Raises:
        InvalidInputError: the options do not belong together, or the file or the sample is not what they say.
        UnsupportedError, ModelFailedError: the pipeline cannot be published, or not proven; nothing was registered.
        UnavailableError: the registry does not answer.
    """
    publishing.check_request(request.name, request.alias, request.weight)
    version = _publish_onnx(request) if request.file.suffix == ".onnx" else _publish_pipeline(request)
    if request.alias is None:
        told = f"is registered; it is served once you run: penstock promote {request.name} {version}"
    else:
        share = "" if request.weight is None else f" with {request.weight:g}% of the traffic"
        told = f"is registered and is now {request.alias}{share}"
    sys.stdout.write(f"{request.name} version {version} {told}\n")


def _publish_onnx(request: Request) -> str:
    pipeline_only = {"--labels": request.labels, "--precision": request.precision}
    if given := [option for option, value in pipeline_only.items() if value is not None]:
        raise InvalidInputError(f"{given[0]} is for pipelines; {request.file} is an ONNX model")
    parts = _behind_features(request)
    return publishing.publish(
        request.name, request.file, registry=request.registry, alias=request.alias, weight=request.weight, **parts
    )


def _behind_features(request: Request) -> dict[str, Any]:
    """The specification, the baseline and the sample of an ONNX model behind a feature specification."""
    if request.features is None and request.sample is None:
        return {}
    if request.features is None:
        raise InvalidInputError("--sample of an ONNX model needs --features, which says what the columns are")
    from penstock_server.drift.fit import fit_baseline
    from penstock_tools.publish import feature_file
    from penstock_tools.publish import onnx_graph as graph
    from penstock_tools.publish import prediction_baseline as answers_baseline
    from penstock_tools.publish.pipeline import GOLDEN_ROWS
    from penstock_tools.sklearn_compiler import load as files
    from penstock_tools.sklearn_compiler.sample_reading import of_specification

    features = feature_file.read(request.features)
    if request.sample is None:
        return {"features": features}
    rows = of_specification(features, files.read_sample(request.sample))
    found = graph.read(request.file)
    graph.hold_fit(found.signature, features)
    table = rows.on_the_wire()
    baseline = answers_baseline.with_answers(fit_baseline(features, table), found, features, table)
    return {"features": features, "baseline": baseline, "sample": rows.finite().some(GOLDEN_ROWS).on_the_wire()}


def _publish_pipeline(request: Request) -> str:
    if request.features is not None:
        raise InvalidInputError(f"--features is for ONNX models; the specification of {request.file} is compiled")
    if request.sample is None:
        raise InvalidInputError("a pipeline is published with sample rows; give --sample DATA")
    from penstock_tools.publish import pipeline as pipeline_publishing
    from penstock_tools.publish import summary
    from penstock_tools.sklearn_compiler import load as files
    from penstock_tools.sklearn_compiler import scoring

    # Before the steps are shown: a question on the terminal and a spinner do not go together.
    pipeline = files.load_pipeline(request.file, consent.asker(trusts=request.trust))
    with progress.steps() as report:
        report(f"reading {request.sample}")
        sample, labels = files.with_labels(files.read_sample(request.sample), request.labels)
        prepared = pipeline_publishing.prepare(pipeline, sample, datatype=request.precision, report=report)
        scores = {} if labels is None else scoring.scores(prepared.compiled, labels)
        done = pipeline_publishing.register(
            request.name,
            prepared,
            scores,
            registry=request.registry,
            alias=request.alias,
            weight=request.weight,
            report=report,
        )
    summary.show(prepared, scores)
    return done.version
