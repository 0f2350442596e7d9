"""What `penstock features` shows: a specification from a file, or the one that a pipeline would be published with.

Decides by the suffix what the file is, and what is told of it. Nothing is registered and nothing written.
"""

import sys
from pathlib import Path
from typing import Final

from penstock_server.errors import InvalidInputError
from penstock_server.features.spec import limits, spec
from penstock_server.features.spec.spec import Datatype, FeatureSpec

_YAML: Final = frozenset({".yaml", ".yml"})


def read(path: Path) -> FeatureSpec:
    """The specification in a .yaml, .yml or .json file.

    Raises:
        InvalidInputError: no such file, another kind of file, or no sound specification; names the column and the step.
    """
    if path.suffix not in _YAML | {".json"}:
        raise InvalidInputError(f"{path} is no feature specification; expected .yaml or .json")
    try:
        size = path.stat().st_size
        if size > limits.MAX_BYTES:
            raise InvalidInputError(f"{path} takes {size} bytes, expected at most {limits.MAX_BYTES}")
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}") from error
    return spec.decode_yaml(data) if path.suffix in _YAML else spec.decode(data)


def show(file: Path, sample: Path | None, precision: Datatype | None, *, as_yaml: bool, trust: bool) -> None:
    """Prints what the specification takes and gives, and what it makes of the sample.

    Args:
        file: a specification, or a pipeline.
        sample: rows as .csv or .parquet; a pipeline needs them.
        precision: what a pipeline's graph is to compute in; None for what the proof allows.
        as_yaml: print the specification itself instead.
        trust: load a file even if it can run code.

    Raises:
        InvalidInputError: the file or the sample is not what it is said to be.
        UnsupportedError, ModelFailedError: the pipeline cannot be published, or not proven.
    """
    if file.suffix in _YAML | {".json"}:
        if precision is not None:
            raise InvalidInputError(f"--precision is for pipelines; {file} says its datatype itself")
        _show_specification(read(file), sample, as_yaml=as_yaml)
        return
    if sample is None:
        raise InvalidInputError("a pipeline is compiled with sample rows; give --sample DATA")
    from penstock_tools.cli import consent, progress
    from penstock_tools.publish import pipeline as publishing
    from penstock_tools.publish import summary
    from penstock_tools.sklearn_compiler import load as files

    pipeline = files.load_pipeline(file, consent.asker(trusts=trust))
    with progress.steps() as report:
        report(f"reading {sample}")
        prepared = publishing.prepare(pipeline, files.read_sample(sample), datatype=precision, report=report)
    if as_yaml:
        sys.stdout.write(spec.encode_yaml(prepared.features).decode())
    else:
        summary.show_columns(prepared.features, prepared.compiled.sample)
        summary.show(prepared, {})


def _show_specification(features: FeatureSpec, sample: Path | None, *, as_yaml: bool) -> None:
    from penstock_tools.publish import summary
    from penstock_tools.sklearn_compiler import load as files
    from penstock_tools.sklearn_compiler import sample_reading as samples

    rows = None if sample is None else samples.of_specification(features, files.read_sample(sample))
    if as_yaml:
        sys.stdout.write(spec.encode_yaml(features).decode())
    else:
        summary.show_columns(features, rows)
