"""Answers in files: a folder of parts, or one file, that are there whole or not at all.

On this machine parts lie in a folder beside the output, and a rename makes the output of them. A store of objects has no
renames: there parts are written in place, each at once, and `_SUCCESS` says that all are there. A part counts once its
result lies beside it, which is written after it.
"""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq

from penstock_server.errors import InvalidInputError, UnavailableError, first_line
from penstock_server.sources.registry import redacted
from penstock_tools.batch.inputs import CSV, PARQUET, opened
from penstock_tools.batch.job import Job, PartResult

SUCCESS: Final = "_SUCCESS"
MANIFEST: Final = "_penstock.json"
WORK: Final = ".penstock"
"""Behind the output's name: the folder of a job that is not finished."""
_DONE: Final = ".done"


class FilesOutput:
    """A file or a folder of files.

    Args:
        address: of a `.parquet` or `.csv` file, or of a folder for parts of Parquet.
        overwrites: what is there may be replaced.

    Raises:
        InvalidInputError: a store of objects is to have one file, or nothing installed reaches it.
    """

    def __init__(self, address: str, *, overwrites: bool = False) -> None:
        self.address = redacted(address)
        filesystem, self._path = opened(address)
        self._url = address
        self._overwrites = overwrites
        self._is_local = "file" in filesystem.protocol
        self._is_file = self._path.endswith((*PARQUET, CSV[0]))
        self._suffix = CSV[0] if self._path.endswith(CSV[0]) else PARQUET[0]
        if self._is_file and not self._is_local:
            raise InvalidInputError(f"{self.address} is one file in a store of objects; name a folder for its parts")
        if self._is_local:
            self._path = os.path.abspath(self._path)
        work = f"{self._path}{WORK}" if self._is_local else f"{self._path}/{MANIFEST.partition('.')[0]}"
        self._parts = f"{work}/parts" if self._is_local else self._path
        self._results = f"{work}/results"
        self._work = work
        self._trash = f"{work}-done"

    def begin(self, job: Job, schema: pa.Schema) -> Mapping[int, PartResult] | None:
        _check_flat(schema, self._suffix)
        known = f"{self._work}/job.json"
        if self._exists(self._trash) or (self._exists(self._work) and not self._exists(known)):
            # It was killed while it took away what it no longer needed.
            is_same = self._is_file or self._finished_id() == job.id
            self._remove(self._trash)
            self._remove(self._work)
            if is_same and self._is_there():
                return None
        if self._exists(known):
            former = msgspec.json.decode(self._read(known), type=Job)
            if former.id == job.id:
                return {each.part: each for each in self._read_results()}
            if not self._overwrites and not self._is_renamed():
                raise InvalidInputError(
                    f"{self.address} has another job that was not finished ({former.key[0]} {former.key[1]} on "
                    f"{former.input}); --overwrite begins anew"
                )
            self._remove(self._work)
        if self._is_there():
            if not self._overwrites:
                raise InvalidInputError(f"{self.address} exists already; --overwrite replaces it")
            if not self._is_local:
                self._remove(self._path)
        self._write(known, msgspec.json.encode(job))
        return {}

    def is_finished(self, name: str) -> bool:
        manifest = f"{self._path}/{MANIFEST}"
        return (
            bool(name) and self._exists(manifest) and msgspec.json.decode(self._read(manifest))["job"]["name"] == name
        )

    def write(self, answers: pa.Table, result: PartResult) -> None:
        self._write(f"{self._parts}/{_part(result.part)}{self._suffix}", _encoded(answers, self._suffix))
        self._write(f"{self._results}/{_part(result.part)}{_DONE}", msgspec.msgpack.encode(result))

    def finish(self, results: Sequence[PartResult]) -> None:
        if not self._is_renamed():
            self._publish(results)
        if self._is_local:
            # At once, so that nobody goes on with the half of it.
            os.rename(self._work, self._trash)
            self._remove(self._trash)
        else:
            self._remove(f"{self._work}/job.json")
            self._remove(self._work)

    def _publish(self, results: Sequence[PartResult]) -> None:
        job = msgspec.json.decode(self._read(f"{self._work}/job.json"), type=Job)
        numbers = sorted(each.part for each in results)
        if self._is_file:
            whole = f"{self._work}/whole{self._suffix}"
            _join([f"{self._parts}/{_part(number)}{self._suffix}" for number in numbers], whole, self._suffix)
            os.replace(whole, self._path)
            return
        manifest = {"job": job, "rows": sum(each.rows for each in results), "parts": len(results)}
        self._write(f"{self._parts}/{MANIFEST}", msgspec.json.encode(manifest))
        self._write(f"{self._parts}/{SUCCESS}", b"")
        if self._is_local:
            if os.path.exists(self._path):
                os.rename(self._path, f"{self._work}/former")
            os.rename(self._parts, self._path)

    def _is_renamed(self) -> bool:
        """Whether the folder of parts has become the output."""
        is_folder = self._is_local and not self._is_file
        return is_folder and os.path.exists(f"{self._path}/{SUCCESS}") and not os.path.exists(self._parts)

    def _finished_id(self) -> str:
        """The id of the job whose answers are there; "" if there is none."""
        manifest = f"{self._path}/{MANIFEST}"
        return str(msgspec.json.decode(self._read(manifest))["job"]["id"]) if self._exists(manifest) else ""

    def _is_there(self) -> bool:
        if self._is_local:
            path = Path(self._path)
            return path.is_file() or (path.is_dir() and any(path.iterdir()))
        return bool(opened(self._url)[0].find(self._path))

    def _read_results(self) -> Iterable[PartResult]:
        filesystem, _ = opened(self._url)
        names = [name for name in filesystem.find(self._results) if str(name).endswith(_DONE)]
        return [msgspec.msgpack.decode(self._read(str(name)), type=PartResult) for name in names]

    def _exists(self, path: str) -> bool:
        return bool(opened(self._url)[0].exists(path))

    def _read(self, path: str) -> bytes:
        content: bytes = opened(self._url)[0].cat_file(path)
        return content

    def _remove(self, path: str) -> None:
        if self._is_local:
            shutil.rmtree(path, ignore_errors=True)
        else:
            filesystem, _ = opened(self._url)
            if filesystem.exists(path):
                filesystem.rm(path, recursive=True)

    def _write(self, path: str, content: bytes | pa.Buffer) -> None:
        """Writes a file at once: under another name first, or as one object."""
        try:
            if not self._is_local:
                opened(self._url)[0].pipe_file(path, bytes(content))
                return
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            # Apart from the parts, of which all files are read.
            Path(self._work).mkdir(parents=True, exist_ok=True)
            scratch = f"{self._work}/{os.getpid()}.tmp"
            with open(scratch, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
        except OSError as error:
            raise UnavailableError(f"{path} cannot be written: {first_line(error)}") from error


def _part(number: int) -> str:
    return f"part-{number:06}"


def _check_flat(schema: pa.Schema, suffix: str) -> None:
    nested = next((field for field in schema if pa.types.is_nested(field.type)), None)
    if suffix == CSV[0] and nested is not None:
        raise InvalidInputError(f"column {nested.name!r} holds {nested.type}, which CSV cannot hold; write Parquet")


def _encoded(answers: pa.Table, suffix: str) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    if suffix == CSV[0]:
        pc.write_csv(answers, sink)
    else:
        pq.write_table(answers, sink)
    return sink.getvalue()


def _join(parts: Sequence[str], whole: str, suffix: str) -> None:
    """Writes the parts into one file."""
    with open(whole, "wb") as file:
        if suffix == CSV[0]:
            for at, part in enumerate(parts):
                with open(part, "rb") as each:
                    if at:
                        each.readline()  # the header; no name holds a line's end
                    shutil.copyfileobj(each, file)
        elif parts:
            with pq.ParquetWriter(file, pq.read_schema(parts[0])) as writer:
                for part in parts:
                    found = pq.ParquetFile(part)
                    for group in range(found.metadata.num_row_groups):
                        writer.write_table(found.read_row_group(group))
        file.flush()
        os.fsync(file.fileno())


def write_bad_rows(address: str, results: Sequence[PartResult]) -> None:
    """Writes the rows that were set aside, with their number, column and reason, into a .parquet or .csv file."""
    tables: list[Any] = [pa.ipc.open_stream(each.bad).read_all() for each in results if each.bad]
    filesystem, path = opened(address)
    content = (
        bytes(_encoded(pa.concat_tables(tables), CSV[0] if path.endswith(CSV[0]) else PARQUET[0])) if tables else b""
    )
    if not tables:
        if filesystem.exists(path):
            filesystem.rm(path)
        return
    if "file" not in filesystem.protocol:
        filesystem.pipe_file(path, content)
        return
    scratch = f"{path}.{os.getpid()}.tmp"
    Path(scratch).write_bytes(content)
    os.replace(scratch, path)
