"""Rows in files: Parquet and CSV, local or in any store that fsspec reaches, one file or a folder or pattern of them.

Parquet is read by whoever scores it, by groups of rows. CSV cannot be cut without being read, so one process reads it and
hands parts on.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError, first_line
from penstock_server.sources.registry import redacted
from penstock_tools.batch.job import BATCH_ROWS, Input, Part, job_id

PARQUET: Final = (".parquet", ".pq")
CSV: Final = (".csv", ".csv.gz")


def opened(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Raises:
        InvalidInputError: nothing installed reaches it; says what to install.
    """
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise InvalidInputError(f"{redacted(address)} cannot be reached: {first_line(error)}") from error
    return filesystem, str(path)


@contextmanager
def reading(what: str) -> Iterator[None]:
    """What pyarrow and file systems raise inside leaves as an error of ours."""
    try:
        yield
    except (InvalidInputError, NotFoundError):
        raise
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no {what}") from error
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise InvalidInputError(f"{what} does not read: {first_line(error)}") from error
    except (OSError, pa.ArrowException) as error:  # botocore's are OSErrors by s3fs
        raise UnavailableError(f"{what} does not read: {first_line(error)}") from error


def files_input(address: str, part_rows: int, wanted: pa.Schema) -> Input:
    """The rows of a file, or of all files of a folder or pattern, in the order of their names.

    Args:
        address: a path or URL.
        part_rows: about the rows of a part.
        wanted: the columns that the version reads, for CSV, which says nothing of types.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: it is neither Parquet nor CSV.
    """
    filesystem, path = opened(address)
    shown = redacted(address)
    with reading(shown):
        if any(sign in path for sign in "*?["):
            names = filesystem.glob(path)
        elif filesystem.isdir(path):
            names = [name for name in filesystem.find(path) if not _is_hidden(name.removeprefix(path))]
        else:
            names = [path]
        names = sorted(name for name in map(str, names) if name.endswith((*PARQUET, *CSV)))
        if not names:
            raise NotFoundError(f"{shown} has no file of rows; expected {', '.join((*PARQUET, *CSV))}")
        if not filesystem.exists(names[0]):
            raise NotFoundError(f"there is no {shown}")
        if all(name.endswith(PARQUET) for name in names):
            return ParquetInput(address, names, part_rows)
        if all(name.endswith(CSV) for name in names):
            return CsvInput(address, names, part_rows, wanted)
    raise InvalidInputError(f"{shown} has files of Parquet and of CSV; expected one of the two")


def _is_hidden(path: str) -> bool:
    return any(each.startswith(("_", ".")) for each in path.split("/") if each)


def _identity(filesystem: Any, names: Sequence[str]) -> str:
    known = ("size", "mtime", "ETag", "etag", "LastModified", "last_modified")
    infos = [filesystem.info(name) for name in names]
    return job_id([[name, *(str(info.get(key)) for key in known)] for name, info in zip(names, infos, strict=True)])


class ParquetInput:
    """Files of Parquet; a part is some groups of rows of one file."""

    is_anywhere = True

    def __init__(self, address: str, names: Sequence[str], part_rows: int) -> None:
        self._address, self._names, self._part_rows = address, names, part_rows
        filesystem, _ = opened(address)
        self.identity = _identity(filesystem, names)
        self._groups: list[list[int]] = []
        for name in names:
            with filesystem.open(name) as file:
                found = pq.ParquetFile(file)
                if name == names[0]:
                    self.schema = found.schema_arrow.remove_metadata()
                elif not found.schema_arrow.equals(self.schema):
                    raise InvalidInputError(f"{name} has other columns than {names[0]}; expected the same in all files")
                metadata = found.metadata
                self._groups.append([metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)])
        self.rows = sum(map(sum, self._groups))

    def narrow(self, names: Collection[str]) -> None:
        self.schema = pa.schema([field for field in self.schema if field.name in names])

    def parts(self) -> Iterator[Part]:
        number = first_row = 0
        for name, groups in zip(self._names, self._groups, strict=True):
            read = partial(_Groups, self._address, name, tuple(self.schema.names))
            at = 0
            while at < len(groups):
                end, rows = at, 0
                while end < len(groups) and (end == at or rows + groups[end] <= self._part_rows):
                    rows += groups[end]
                    end += 1
                yield Part(number, first_row, name, read(tuple(range(at, end))))
                number, first_row, at = number + 1, first_row + rows, end


@dataclass(frozen=True, slots=True)
class _Groups:
    """Reads groups of rows of a file."""

    address: str
    name: str
    columns: tuple[str, ...]
    groups: tuple[int, ...]

    def __call__(self) -> Iterator[pa.RecordBatch]:
        filesystem, _ = opened(self.address)
        with reading(self.name), filesystem.open(self.name) as file:
            found = pq.ParquetFile(file)
            groups, columns = list(self.groups), list(self.columns)
            yield from found.iter_batches(BATCH_ROWS, row_groups=groups, columns=columns, use_threads=False)


@dataclass(frozen=True, slots=True)
class InMemory:
    """Rows that were read already."""

    rows: list[pa.RecordBatch]

    def __call__(self) -> Iterable[pa.RecordBatch]:
        return self.rows


class CsvInput:
    """Files of CSV with a header each; empty fields are missing values."""

    is_anywhere = False
    rows: int | None = None

    def __init__(self, address: str, names: Sequence[str], part_rows: int, wanted: pa.Schema) -> None:
        self._address, self._names, self._part_rows = address, names, part_rows
        filesystem, _ = opened(address)
        self.identity = _identity(filesystem, names)
        kinds = {field.name: field.type for field in wanted if not pa.types.is_nested(field.type)}
        times = [name for name, kind in kinds.items() if pa.types.is_timestamp(kind)]
        # Times with a zone and times without are of two types. The first block of the first file tells which they are, as it
        # tells the types of what the version does not read.
        with self._reader(names[0], {name: kind for name, kind in kinds.items() if name not in times}) as reader:
            found = reader.schema
        for name in set(times).intersection(found.names):
            at, kind = found.get_field_index(name), found.field(name).type
            if not pa.types.is_integer(kind):
                zone = "UTC" if pa.types.is_timestamp(kind) and kind.tz else None
                found = found.set(at, pa.field(name, pa.timestamp("ns", zone)))
        self.schema = found

    def narrow(self, names: Collection[str]) -> None:
        self.schema = pa.schema([field for field in self.schema if field.name in names])

    def parts(self) -> Iterator[Part]:
        yield from streamed(self._batches(), self._part_rows, redacted(self._address))

    def _batches(self) -> Iterator[pa.RecordBatch]:
        kinds = dict(zip(self.schema.names, self.schema.types, strict=True))
        for name in self._names:
            with self._reader(name, kinds, self.schema.names) as reader:
                yield from reader

    @contextmanager
    def _reader(self, name: str, kinds: Mapping[str, pa.DataType], only: Sequence[str] = ()) -> Iterator[Any]:
        options = pc.ConvertOptions(
            column_types=kinds, include_columns=list(only), strings_can_be_null=True, null_values=_MISSING
        )
        filesystem, _ = opened(self._address)
        with reading(name), filesystem.open(name, compression="gzip" if name.endswith(".gz") else None) as file:
            yield pc.open_csv(file, pc.ReadOptions(block_size=8 << 20), convert_options=options)


_MISSING: Final = ["", "NA", "NaN", "nan", "null"]


def streamed(batches: Iterable[pa.RecordBatch], part_rows: int, place: str) -> Iterator[Part]:
    """Parts of rows that are read one after the other, each of so many rows but the last."""
    number, first_row, waiting, rows = 0, 0, list[pa.RecordBatch](), 0
    for each in batches:
        batch = each
        while batch.num_rows:
            head = batch.slice(0, part_rows - rows)
            waiting.append(head)
            rows += head.num_rows
            batch = batch.slice(head.num_rows)
            if rows == part_rows:
                yield Part(number, first_row, place, InMemory(waiting))
                number, first_row, waiting, rows = number + 1, first_row + rows, [], 0
    if rows:
        yield Part(number, first_row, place, InMemory(waiting))
