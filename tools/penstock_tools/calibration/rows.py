"""Rows that were seen already, read in parts: a sample in a file, or a server's request log.

What is read is a frame of raw columns and the moments of the rows. Whoever calls says which columns, and which are text.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock.names import did_you_mean
from penstock_server.errors import InvalidInputError, NotFoundError, first_line
from penstock_server.paths import file_name_for
from penstock_server.request_log.files import PARQUET
from penstock_server.request_log.parquet import INPUT
from penstock_tools.publish.time_order import moments

CHUNK_ROWS: Final = 50_000
_LOGGED_TIME: Final = "time"
_SHADOW: Final = "shadow"


class Rows(Protocol):
    """Rows that can be read again and again, in the same order."""

    @property
    def names(self) -> tuple[str, ...]:
        """The columns."""

    @property
    def time(self) -> str | None:
        """The column that says when rows came, which need not be among the others; None where nothing does."""

    def chunks(self, columns: Sequence[str], texts: Collection[str] = ()) -> Iterator[pd.DataFrame]:
        """These columns of some successive rows at a time; those of `texts` are not taken for numbers."""

    def moments(self) -> "pd.Series[Any] | None":
        """When each row came, or numbers that grow with that; None where nothing says it."""


class SampleFile:
    """A .csv or .parquet file.

    Args:
        path: the file.
        time: its column of times; None takes the rows as they are.

    Raises:
        InvalidInputError: no such file, another kind of file, no rows, or no such column.
    """

    def __init__(self, path: Path, time: str | None = None) -> None:
        readers = {".csv": _csv_chunks, ".parquet": _parquet_chunks}
        if path.suffix not in readers:
            raise InvalidInputError(f"{path} is no sample; expected .csv or .parquet")
        if not path.is_file():
            raise InvalidInputError(f"there is no file {path}; expected sample rows as .csv or .parquet")
        self._path = path
        self._read: Callable[..., Iterator[pd.DataFrame]] = readers[path.suffix]
        first = next(self._guarded(None, (), 100), None)
        if first is None or not len(first):
            raise InvalidInputError(f"{path} holds no rows; expected one at least")
        names = tuple(str(name) for name in first.columns)
        if time is not None and time not in names:
            raise InvalidInputError(
                f"the sample has no column {time!r}{did_you_mean(time, names)}; it has {', '.join(names)}"
            )
        self.time = time
        self.names = tuple(name for name in names if name != time)

    def chunks(self, columns: Sequence[str], texts: Collection[str] = ()) -> Iterator[pd.DataFrame]:
        """These columns of some successive rows at a time.

        Raises:
            InvalidInputError: the file does not read.
        """
        return self._guarded(list(columns), texts, CHUNK_ROWS)

    def moments(self) -> "pd.Series[Any] | None":
        """The column of times, as `time_order.moments` has it.

        Raises:
            InvalidInputError: it holds something else, or a row has no time.
        """
        if self.time is None:
            return None
        return moments(self.time, pd.concat([part[self.time] for part in self.chunks([self.time])], ignore_index=True))

    def _guarded(self, columns: list[str] | None, texts: Collection[str], rows: int) -> Iterator[pd.DataFrame]:
        try:
            yield from self._read(self._path, columns, texts, rows)
        except InvalidInputError:
            raise
        except (ValueError, OSError, UnicodeError) as error:
            raise InvalidInputError(
                f"{self._path} does not read as {self._path.suffix[1:]}: {first_line(error)}"
            ) from error


def _csv_chunks(path: Path, columns: list[str] | None, texts: Collection[str], rows: int) -> Iterator[pd.DataFrame]:
    # A part of a column of text may look like numbers.
    kinds: Any = dict.fromkeys(texts, object)
    with pd.read_csv(path, usecols=columns, dtype=kinds, chunksize=rows) as parts:
        yield from parts


def _parquet_chunks(
    path: Path, columns: list[str] | None, _texts: Collection[str], rows: int
) -> Iterator[pd.DataFrame]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(rows, columns=columns):
            yield batch.to_pandas()


class RequestLog:
    """What a server logged of one model, without what its shadow was given again.

    Args:
        folder: the log's, as `[request_log]` names it, or the model's in it.
        model: the model's name; None where the log is of one model.

    Raises:
        InvalidInputError: there is no such folder, or the log is of several models.
        NotFoundError: nothing was logged; says what to do.
    """

    def __init__(self, folder: Path, model: str | None = None) -> None:
        import pyarrow.dataset as ds

        files = log_files(folder, model)
        # Versions may have different columns; what a row lacks is missing.
        schemas = {file.parent: file for file in files}
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            schema = pa.unify_schemas([pq.read_schema(file) for file in schemas.values()], promote_options="permissive")
            self._data = ds.dataset(files, schema=schema, format="parquet")
        except (OSError, pa.ArrowException) as error:
            raise InvalidInputError(f"a file in {folder} cannot be read: {first_line(error)}") from error
        self.time: str | None = _LOGGED_TIME
        self.names = tuple(
            field.name.removeprefix(INPUT)
            for field in schema
            if field.name.startswith(INPUT) and not pa.types.is_list(field.type)
        )

    def chunks(self, columns: Sequence[str], texts: Collection[str] = ()) -> Iterator[pd.DataFrame]:
        """These columns of some successive rows at a time."""
        for part in self._batches([f"{INPUT}{name}" for name in columns]):
            frame = part.rename(columns={f"{INPUT}{name}": name for name in columns})
            for name in texts:
                frame[name] = frame[name].astype(object)
            yield frame

    def moments(self) -> "pd.Series[Any] | None":
        """When each row was answered."""
        return pd.concat([part[_LOGGED_TIME] for part in self._batches([_LOGGED_TIME])], ignore_index=True)

    def _batches(self, columns: list[str]) -> Iterator[pd.DataFrame]:
        import pyarrow as pa
        import pyarrow.compute as pc

        try:
            batches = self._data.to_batches(
                columns=columns, filter=pc.field("role") != _SHADOW, batch_size=CHUNK_ROWS, use_threads=False
            )
            for batch in batches:
                if len(batch):
                    yield batch.to_pandas()
        except (OSError, pa.ArrowException) as error:
            raise InvalidInputError(f"a file of the request log cannot be read: {first_line(error)}") from error


def log_files(folder: Path, model: str | None = None) -> list[Path]:
    """The Parquet files of a request log that are of one model, as `RequestLog` takes it, the oldest of a version first."""
    if not folder.is_dir():
        raise InvalidInputError(f"{folder} is no directory; expected that of [request_log] in the server's settings")
    own = None if model is None else folder / file_name_for(model)
    files = sorted((folder if own is None or not own.is_dir() else own).rglob(f"*{PARQUET}"))
    if not files:
        raise NotFoundError(
            f"no rows were logged in {folder if own is None else own}; files appear there when they are as large or as old "
            "as request_log.rotate_bytes and rotate_s say"
        )
    models = sorted({file.parent.parent.name for file in files})
    if len(models) > 1:
        raise InvalidInputError(f"the log in {folder} is of the models {', '.join(models)}; name one of their folders")
    return files


def seconds(times: "pd.Series[Any]") -> NDArray[np.float64] | None:
    """Moments as seconds since 1970; None where they are numbers that count neither seconds since then nor parts of them."""
    if isinstance(times.dtype, pd.DatetimeTZDtype) or times.dtype.kind == "M":
        found: NDArray[np.float64] = (
            pd.DatetimeIndex(times).tz_localize(None).to_numpy("datetime64[ns]").astype(np.int64) / 1e9
        )
        return found
    values = times.to_numpy(np.float64)
    for parts in _PARTS if len(values) else ():
        if _EPOCH_S[0] < values.min() / parts and values.max() / parts < _EPOCH_S[1]:
            since_1970: NDArray[np.float64] = values / parts
            return since_1970
    return None


_EPOCH_S: Final = (5e8, 5e9)
"""Seconds since 1970 from 1985 to 2128."""
_PARTS: Final = (1.0, 1e3, 1e6, 1e9)
