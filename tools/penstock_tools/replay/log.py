"""A server's request log as it is replayed: parts of successive rows with their columns and what was answered.

Files are read one by one, since versions have different columns. What a shadow was given again is left out.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError, first_line
from penstock_server.request_log.files import PARQUET
from penstock_server.request_log.parquet import INPUT, OUTPUT
from penstock_tools.calibration.rows import log_files

PART_ROWS: Final = 4096
_SHADOW: Final = "shadow"


class Part(NamedTuple):
    """Successive rows of a file.

    Attributes:
        ids: the id of each row's request, str [rows].
        places: each row's place in its request, int64 [rows].
        versions: which version answered, str [rows].
        times: when, datetime64[us] in UTC [rows].
        inputs, outputs: columns by name, each [rows], or [rows, values] where a row has several, or objects that are arrays
            where rows have different numbers of them.
    """

    ids: NDArray[Any]
    places: NDArray[np.int64]
    versions: NDArray[Any]
    times: NDArray[np.datetime64]
    inputs: dict[str, NDArray[Any]]
    outputs: dict[str, NDArray[Any]]

    @property
    def rows(self) -> int:
        return len(self.ids)

    @property
    def is_ragged(self) -> bool:
        """Whether rows of a column hold different numbers of values, so that they are no rows of one tensor."""
        return any(is_ragged(values) for values in (*self.inputs.values(), *self.outputs.values()))

    def row(self, at: int) -> "Part":
        """One row alone, with each column as a tensor of its own."""
        return Part(
            self.ids[at : at + 1],
            self.places[at : at + 1],
            self.versions[at : at + 1],
            self.times[at : at + 1],
            {name: _whole(values[at]) for name, values in self.inputs.items()},
            {name: _whole(values[at]) for name, values in self.outputs.items()},
        )


class ReplayLog:
    """The log's files of one model.

    Args:
        place: the log's folder, as `[request_log]` names it, a folder in it, or one of its files.
        model: the model's name; a log of one other model alone is taken too.
        since, until: only rows that were answered from the one on and before the other; None sets no bound.

    Attributes:
        rows: how many all files hold.
        model: the model that was asked.

    Raises:
        InvalidInputError: there is no such place, a file is none of a request log, or the log is of several models.
        NotFoundError: nothing was logged; says what to do.
    """

    def __init__(
        self, place: Path, model: str | None, since: datetime | None = None, until: datetime | None = None
    ) -> None:
        self.files = [place] if place.is_file() else log_files(place, model)
        if self.files[0].suffix != PARQUET:
            raise InvalidInputError(
                f"{place} is no file of a request log; expected *{PARQUET}, or a folder of such files"
            )
        self._bounds = since, until
        self.model = _model_in(self.files[0])
        self.rows = sum(_opened(file).metadata.num_rows for file in self.files)

    def parts(self) -> Iterator[Part]:
        """The rows but those of shadows, some at a time.

        Raises:
            InvalidInputError: a file cannot be read, or is none of a request log.
        """
        for path in self.files:
            try:
                for batch in _opened(path).iter_batches(PART_ROWS):
                    yield _part(batch, *self._bounds)
            except InvalidInputError:
                raise
            except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are of these
                raise InvalidInputError(
                    f"{path} does not read as a file of a request log: {first_line(error)}"
                ) from error


def is_ragged(values: NDArray[Any]) -> bool:
    """Whether a column's rows have different numbers of values."""
    return values.dtype.kind == "O" and len(values) > 0 and isinstance(values[0], np.ndarray)


def _opened(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise InvalidInputError(f"{path} does not read as Parquet: {first_line(error)}") from error


def _model_in(path: Path) -> str:
    """The model that a file is of."""
    try:
        found = _opened(path).read_row_group(0, columns=["model"])["model"][0].as_py()
    except (OSError, ValueError, KeyError, IndexError) as error:  # pyarrow's errors are of these
        raise InvalidInputError(f"{path} does not read as a file of a request log: {first_line(error)}") from error
    return str(found)


def _part(batch: Any, since: datetime | None, until: datetime | None) -> Part:
    """A batch of a file's rows, `pyarrow.RecordBatch`, within these bounds, without what a shadow answered."""
    import pyarrow as pa
    import pyarrow.compute as pc

    batch = batch.filter(pc.not_equal(batch["role"].cast(pa.string()), _SHADOW))
    for bound, keeps in ((since, pc.greater_equal), (until, pc.less)):
        if bound is not None:
            batch = batch.filter(keeps(batch["time"], pa.scalar(bound, batch["time"].type)))
    return Part(
        batch["request_id"].to_numpy(zero_copy_only=False),
        batch["row"].to_numpy(zero_copy_only=False).astype(np.int64),
        batch["version"].cast(pa.string()).to_numpy(zero_copy_only=False),
        batch["time"].cast(pa.timestamp("us")).to_numpy(zero_copy_only=False),
        _columns(batch, INPUT),
        _columns(batch, OUTPUT),
    )


def _columns(batch: Any, prefix: str) -> dict[str, NDArray[Any]]:
    names: Sequence[str] = batch.schema.names
    return {name.removeprefix(prefix): _values(batch[name]) for name in names if name.startswith(prefix)}


def _values(column: Any) -> NDArray[Any]:
    """A column's values, those of each row side by side where a row has a list of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_list(column.type):
        values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
        return values
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    flat: NDArray[Any] = column.flatten().to_numpy(zero_copy_only=False)
    if len(lengths) and (lengths == lengths[0]).all():
        return flat.reshape(len(lengths), lengths[0])
    found = np.empty(len(lengths), object)
    ends = np.cumsum(lengths)
    found[:] = [flat[end - length : end] for end, length in zip(ends, lengths, strict=True)]
    return found


def _whole(value: Any) -> NDArray[Any]:
    """What one row holds of a column, as the one row of a column."""
    array = np.asarray(value) if not isinstance(value, str) else np.array(value, object)
    return array.reshape(1, -1)
