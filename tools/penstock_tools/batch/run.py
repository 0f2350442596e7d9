"""What `penstock batch` does once its options are read: finds version, input and output, has parts scored, and sums up.

The engine is one of `local` and `on_ray`; both call `worker.Worker` for each part, which writes what it has scored.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from penstock.names import VersionKey, did_you_mean
from penstock_server.cores import cores
from penstock_server.drift import statistics
from penstock_server.drift.evaluate import version_drift
from penstock_server.drift.reference import reference_of
from penstock_server.drift.report import DriftRules, VersionDrift
from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_server.features.counting import EXTRA_CELLS, bins_of, counts_of
from penstock_server.models import artifact
from penstock_server.models.artifact import Artifact
from penstock_server.sources.registry import redacted
from penstock_tools.batch import files, inputs, local
from penstock_tools.batch.files import FilesOutput
from penstock_tools.batch.job import PART_ROWS, Input, Job, Output, PartResult, Recipe, job_id, waiting
from penstock_tools.batch.worker import Worker
from penstock_tools.progress import Bars
from penstock_tools.publish import logged

_DATABASES: Final = ("postgresql", "sqlite", "mysql", "mariadb", "mssql", "oracle")


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of `penstock batch`; None, or empty, for those that were not given.

    Attributes:
        model: a registered model, or the folder of a version.
        input, output: addresses of files or of a database's table.
        version: an alias as "@canary", or a number; "" is the champion, and in a folder of models the highest number.
        repository: a folder of `<model>/<version>/`, in place of a registry.
        key: the columns that tell rows apart.
        keep: the columns that go beside the answers; "*" is all.
        columns, prefix: as `scoring.Scorer` takes them.
        bad_rows: where bad rows are set aside; None lets the first end the job.
        processes: that score; None for as many as there are cores.
        ray: the address of a cluster of Ray that scores instead.
        job: its name; a job of this name that is finished is not done again.
    """

    model: str
    input: str
    output: str
    version: str = ""
    registry: str | None = None
    repository: Path | None = None
    key: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    prefix: str = ""
    bad_rows: str | None = None
    processes: int | None = None
    part_rows: int = PART_ROWS
    ray: str | None = None
    overwrites: bool = False
    job: str = ""
    allows_python: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What a job did.

    Attributes:
        model, version: who answered.
        rows: that were answered, those of a former attempt included.
        bad_rows: that were set aside.
        resumed_rows: of the answered ones, those of a former attempt.
        parts: of the input.
        took_s: of this attempt.
        scored_s: the seconds of one core that scoring took, over all attempts.
        classes: rows by predicted class, by its name.
        drift: of the rows against those that the version was trained on; None for a version without a baseline.
        was_finished: a job of this name had been done before, and nothing was done.
    """

    model: str
    version: str
    input: str
    output: str
    rows: int
    bad_rows: int
    resumed_rows: int
    parts: int
    took_s: float
    scored_s: float
    classes: dict[str, int]
    drift: VersionDrift | None
    was_finished: bool = False


def is_database(address: str) -> bool:
    """Whether this names a table, as `postgresql+psycopg://host/db#schema.table` does.

    >>> is_database("sqlite:///scores.db#answers"), is_database("s3://bucket/rows.parquet")
    (True, False)
    """
    scheme, mark, _ = address.partition("://")
    return bool(mark) and scheme.partition("+")[0] in _DATABASES


def run(request: Request, bars: Bars) -> Report:
    """Scores the input.

    Raises:
        InvalidInputError: an option, the input or the version is not what it should be; or a row is bad.
        NotFoundError: there is no such model, version or file.
        UnavailableError: the registry, a store or a database does not answer.
    """
    began_s = time.monotonic()
    loading = bars.begin(f"loading {request.model}", 1)
    with _version(request) as (version, key):
        output = _output(request)
        shown = redacted(request.input), redacted(request.output)
        finished = Report(*key, *shown, 0, 0, 0, 0, 0.0, 0.0, {}, None, was_finished=True)
        if output.is_finished(request.job):
            return finished
        recipe = Recipe(
            folder=version.path,
            key=key,
            keep=request.keep,
            columns=request.columns,
            prefix=request.prefix,
            sets_aside=request.bad_rows is not None,
            allows_python=request.allows_python,
            output=output,
        )
        source, recipe, schema = _fitted(request, recipe)
        loading(1)
        identity = job_id(
            key,
            _files_of(version),
            source.identity,
            recipe.keep,
            recipe.columns,
            recipe.prefix,
            request.part_rows,
            request.job,
        )
        job = Job(identity, request.job, key, *shown, request.part_rows)
        begun = output.begin(job, schema)
        if begun is None:
            return finished
        done = dict(begun)
        resumed = sum(each.rows for each in done.values())
        advance = bars.begin("scoring", source.rows)
        advance(resumed + sum(each.bad_rows for each in done.values()))
        for result in _engine(request, source)(waiting(source.parts(), done.keys()), recipe):
            done[result.part] = result
            advance(result.rows + result.bad_rows)
        results = [done[number] for number in sorted(done)]
        if request.bad_rows is not None:
            files.write_bad_rows(request.bad_rows, results)
        output.finish(results)
        return _report(request, version, key, results, resumed=resumed, took_s=time.monotonic() - began_s)


def _fitted(request: Request, recipe: Recipe) -> tuple[Input, Recipe, pa.Schema]:
    """The input as the version reads it, what is kept of it, and the schema of the answers."""
    worker = Worker(recipe)
    try:
        source = _input(request, worker.columns)
        keep = recipe.keep or request.key or ("*",)
        others = source.schema.names if keep == ("*",) else keep
        recipe = replace(recipe, keep=tuple(dict.fromkeys((*request.key, *others))))
        schema = worker.schema(source.schema, recipe.keep)
        source.narrow({*worker.columns.names, *recipe.keep})
        return source, recipe, schema
    finally:
        worker.close()


def _engine(request: Request, source: Input) -> Callable[[Any, Recipe], Iterator[PartResult]]:
    if request.ray is None:
        processes = request.processes or cores()
        return lambda parts, recipe: local.run(parts, recipe, processes)
    if not source.is_anywhere:
        raise InvalidInputError(
            "with --ray the input is read by the cluster's processes, which takes Parquet; convert it, or leave --ray out"
        )
    from penstock_tools.batch import on_ray

    address = request.ray
    return lambda parts, recipe: on_ray.run(parts, recipe, address, request.processes)


def _input(request: Request, wanted: pa.Schema) -> Input:
    if is_database(request.input):
        from penstock_tools.batch.database import TableInput

        return TableInput(request.input, request.key, request.part_rows)
    return inputs.files_input(request.input, request.part_rows, wanted)


def _output(request: Request) -> Output:
    if is_database(request.output):
        from penstock_tools.batch.database import TableOutput

        return TableOutput(request.output, request.key)
    return FilesOutput(request.output, overwrites=request.overwrites)


@contextmanager
def _version(request: Request) -> Iterator[tuple[Artifact, VersionKey]]:
    """The version's files, and its names."""
    number = request.version
    if request.repository is not None:
        folder = _in_repository(request.repository, request.model, number)
        yield artifact.read(folder), (request.model, folder.name)
    elif Path(request.model).is_dir():
        folder = Path(request.model).resolve()
        yield artifact.read(folder), (folder.parent.name, folder.name)
    else:
        which = number if number.startswith("@") else f"/{number}" if number else "@champion"
        with logged.fetched(f"models:/{request.model}{which}", request.registry) as found:
            yield artifact.read(found.folder), (request.model, found.address.rpartition("/")[2])


def _in_repository(repository: Path, model: str, number: str) -> Path:
    models = sorted(path.name for path in repository.iterdir() if path.is_dir()) if repository.is_dir() else []
    if model not in models:
        raise NotFoundError(f"{repository} has no model {model!r}{did_you_mean(model, models)}")
    numbers = sorted((path.name for path in (repository / model).iterdir() if path.name.isdigit()), key=int)
    if number and number not in numbers:
        raise NotFoundError(f"{repository / model} has no version {number!r}; it has {', '.join(numbers) or 'none'}")
    if not numbers:
        raise NotFoundError(f"{repository / model} has no versions; expected folders with numbers as names")
    return repository / model / (number or numbers[-1])


def _files_of(version: Artifact) -> Any:
    """What tells a version from another with the same number."""
    if version.manifest is not None:
        return dict(sorted(version.manifest.files.items()))
    return os.stat(version.model_path).st_size


def _report(
    request: Request, version: Artifact, key: VersionKey, results: Sequence[PartResult], *, resumed: int, took_s: float
) -> Report:
    names = (
        ()
        if version.manifest is None or version.manifest.classes is None
        else tuple(map(str, version.manifest.classes))
    )
    classes: dict[str, int] = {}
    for result in results:
        for label, rows in result.classes.items():
            name = names[label] if 0 <= label < len(names) else str(label)
            classes[name] = classes.get(name, 0) + rows
    return Report(
        *key,
        input=redacted(request.input),
        output=redacted(request.output),
        rows=sum(each.rows for each in results),
        bad_rows=sum(each.bad_rows for each in results),
        resumed_rows=resumed,
        parts=len(results),
        took_s=took_s,
        scored_s=sum(each.took_s for each in results),
        classes=dict(sorted(classes.items())),
        drift=_drift(version, key, results),
    )


def _drift(version: Artifact, key: VersionKey, results: Sequence[PartResult]) -> VersionDrift | None:
    """All rows as one window, whose parts say how much they hang together."""
    counted = [each for each in results if each.counted]
    if version.baseline is None or not counted:
        return None
    words = np.stack([each.counts() for each in counted])
    rows = sum(each.counted for each in counted)
    return version_drift(
        *key,
        (),
        reference=reference_of(version.baseline, version.importance),
        window=counts_of(words),
        rows=rows,
        window_rows=rows,
        rules=DriftRules(),
        dispersion=statistics.dispersion(words[:, :, : bins_of(words.shape[2]) + EXTRA_CELLS]),
    )
