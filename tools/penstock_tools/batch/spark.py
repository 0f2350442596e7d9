"""A version as a function for Spark's `mapInArrow`: from an iterator of record batches to an iterator of record batches.

    score, schema = map_in_arrow("models/fraud/3", to_arrow_schema(frame.schema), keep=("id",))
    frame.mapInArrow(score, schema).write.parquet("scores")

Spark's processes on all machines read the version's folder, so it lies where all reach it, or goes along by `addFile`. Nothing
here needs Spark: any engine with batches of Arrow may use it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from penstock_server.errors import InvalidInputError
from penstock_server.models import artifact
from penstock_tools.batch.scoring import Scorer

_SQL: Final = {
    pa.bool_(): "boolean",
    pa.int8(): "tinyint",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.string(): "string",
    pa.large_string(): "string",
    pa.binary(): "binary",
    pa.date32(): "date",
}


def map_in_arrow(
    folder: str | Path, given: pa.Schema, *, keep: Sequence[str] = (), **options: Any
) -> tuple[Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]], str]:
    """The function, which loads the version in each process that runs it, and the schema of its answers as Spark writes it.

    Args:
        folder: of the version.
        given: the schema of the rows, as `pyspark.sql.pandas.types.to_arrow_schema(frame.schema)` gives it.
        keep: columns that go beside the answers.
        options: further ones of `scoring.Scorer`.

    Raises:
        InvalidInputError: as `Scorer.schema`; or Spark has no such type as an answer's.
    """
    path = Path(folder).resolve()
    key = (path.parent.name, path.name)
    scorer = Scorer(artifact.read(path), key, keep=keep, **options)
    try:
        schema = scorer.schema(given)
    finally:
        scorer.close()

    def score(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        own = Scorer(artifact.read(path), key, keep=keep, **options)
        try:
            yield from map(own, batches)
        finally:
            own.close()

    return score, ", ".join(f"`{field.name}` {_sql(field.name, field.type)}" for field in schema)


def _sql(name: str, kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return "timestamp" if kind.tz else "timestamp_ntz"
    if pa.types.is_decimal(kind):
        return f"decimal({kind.precision}, {kind.scale})"
    if pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        return f"array<{_sql(name, kind.value_type)}>"
    if kind not in _SQL:
        raise InvalidInputError(f"column {name!r} holds {kind}, for which Spark has no type")
    return _SQL[kind]
