"""Rows of a database's table, and answers into one, each row exactly once.

Every part goes into a staging table in one transaction, together with its result, whose key lets no part in twice, whoever
writes it. One transaction then replaces the rows of the same keys in the table, puts the answers in, and drops the staging
table. So a job may be killed at any moment, and two processes may write the same part.
"""

import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.csv as pc
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from penstock_server.errors import InvalidInputError, UnavailableError, first_line
from penstock_server.sources.registry import redacted
from penstock_tools.batch.inputs import streamed
from penstock_tools.batch.job import BATCH_ROWS, Job, Part, PartResult, job_id

PARTS: Final = "penstock_batch_parts"
"""The table of the parts that are written, by job."""
_FINISHED: Final = -1
"""The part that says that a job is."""
_TYPES: Final[tuple[tuple[Callable[[pa.DataType], bool], Any], ...]] = (
    (pa.types.is_boolean, sa.Boolean()),
    (pa.types.is_integer, sa.BigInteger()),
    (pa.types.is_floating, sa.Double()),
    (pa.types.is_decimal, sa.Numeric()),
    (pa.types.is_timestamp, sa.DateTime()),
    (pa.types.is_date, sa.Date()),
    (pa.types.is_string, sa.Text()),
    (pa.types.is_large_string, sa.Text()),
    (pa.types.is_string_view, sa.Text()),
)


def _split(address: str) -> tuple[str, str]:
    url, mark, table = address.rpartition("#")
    if not mark or not table:
        raise InvalidInputError(
            f"{redacted(address)} names no table; expected URL#TABLE, such as postgresql://host/db#scores"
        )
    return url, table


def _engine(url: str, *, writes: bool = False) -> sa.Engine:
    try:
        engine = sa.create_engine(url, **({"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}))
    except (SQLAlchemyError, ImportError) as error:
        raise InvalidInputError(f"{redacted(url)} cannot be opened: {first_line(error)}") from error
    if engine.dialect.name == "sqlite":
        # The driver would end a transaction at each statement that changes a table's form.
        event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
        begin = "BEGIN IMMEDIATE" if writes else "BEGIN"
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise UnavailableError(f"{redacted(url)} does not do what is asked: {first_line(error)}") from error


class TableInput:
    """The rows of a table in the order of their keys.

    Args:
        address: URL#TABLE.
        key: the columns whose values tell the rows apart.
        part_rows: the rows of a part.

    Raises:
        InvalidInputError: there is no key, or the table has no such column.
        UnavailableError: the database does not answer, or has no such table.
    """

    is_anywhere = False

    def __init__(self, address: str, key: Sequence[str], part_rows: int) -> None:
        self._url, name = _split(address)
        if not key:
            raise InvalidInputError(f"the rows of {name} have no order of their own; --key COLUMN gives them one")
        self._place, self._part_rows, self._engine = redacted(address), part_rows, _engine(self._url)
        with _translated(self._url), self._engine.connect() as connection:
            schema, _, last = name.rpartition(".")
            self._table = sa.Table(last, sa.MetaData(), schema=schema or None, autoload_with=connection)
            self.rows = int(connection.execute(sa.select(sa.func.count()).select_from(self._table)).scalar_one())
        lacking = [each for each in key if each not in self._table.c]
        if lacking:
            raise InvalidInputError(f"{name} has no column {lacking[0]!r}; it has {', '.join(self._table.c.keys())}")
        self._key = [self._table.c[each] for each in key]
        self._order: Any = self._key[0] if len(key) == 1 else sa.tuple_(*self._key)
        self.schema = pa.schema([(column.name, _arrow_type(column.type)) for column in self._table.columns])
        self.identity = job_id(redacted(address), list(key))

    def narrow(self, names: Collection[str]) -> None:
        own = {column.name for column in self._key}
        self.schema = pa.schema([field for field in self.schema if field.name in names or field.name in own])

    @property
    def _query(self) -> Any:
        return sa.select(*(self._table.c[name] for name in self.schema.names)).order_by(*self._key)

    def parts(self) -> Iterator[Part]:
        yield from streamed(self._batches(), self._part_rows, self._place)

    def _batches(self) -> Iterator[pa.RecordBatch]:
        with _translated(self._url):
            yield from map(self._batch, self._pages() if self._engine.dialect.name == "sqlite" else self._snapshot())

    def _snapshot(self) -> Iterator[Sequence[Any]]:
        """The rows as they were when the first was read."""
        with self._engine.connect() as connection:
            rows = connection.execution_options(stream_results=True).execute(self._query)
            yield from rows.partitions(BATCH_ROWS)

    def _pages(self) -> Iterator[Sequence[Any]]:
        """The same in short transactions: who reads a database of sqlite keeps others from writing into it."""
        last: Any = None
        while True:
            after = self._query if last is None else self._query.where(self._order > last)
            with self._engine.connect() as connection:
                rows = connection.execute(after.limit(BATCH_ROWS)).all()
            if not rows:
                return
            yield rows
            values = [rows[-1]._mapping[column] for column in self._key]  # noqa: SLF001 - its public name
            last = values[0] if len(values) == 1 else sa.tuple_(*values)

    def _batch(self, rows: Sequence[Any]) -> pa.RecordBatch:
        columns = zip(*rows, strict=True)
        arrays = [pa.array(values, kind) for values, kind in zip(columns, self.schema.types, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)


def _arrow_type(kind: Any) -> pa.DataType:
    for known, found in (
        (sa.Boolean, pa.bool_()),
        (sa.Integer, pa.int64()),
        (sa.Float, pa.float64()),
        (sa.Numeric, pa.decimal128(38, 9)),
        (sa.DateTime, pa.timestamp("us", "UTC" if getattr(kind, "timezone", False) else None)),
        (sa.Date, pa.date32()),
        (sa.LargeBinary, pa.binary()),
    ):
        if isinstance(kind, known):
            return found
    return pa.string()


class TableOutput:
    """A table that gets the answers.

    Args:
        address: URL#TABLE.
        key: the columns whose values tell the rows apart; they are kept beside the answers.

    Raises:
        InvalidInputError: there is no key.
    """

    def __init__(self, address: str, key: Sequence[str]) -> None:
        self._url, self._name = _split(address)
        self.address = redacted(address)
        self._key = tuple(key)
        if not key:
            raise InvalidInputError(f"{self._name} needs a key, so that each row is in it once: --key COLUMN")
        self._job = Job("", "", ("", ""), "", "", 0)
        self._schema = pa.schema([])
        self._opened: sa.Engine | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def begin(self, job: Job, schema: pa.Schema) -> Mapping[int, PartResult]:
        self._job, self._schema = job, schema
        target, staging, parts = self._table(self._name), self._staging, self._parts
        with _translated(self._url), self._begun() as connection:
            parts.create(connection, checkfirst=True)
            target.create(connection, checkfirst=True)
            staging.create(connection, checkfirst=True)
            self._check_target(connection)
            rows = connection.execute(sa.select(parts.c.part, parts.c.result).where(parts.c.job == job.id)).all()
            if any(part == _FINISHED for part, _ in rows):
                # It has been done before under no name, and is done again.
                connection.execute(parts.delete().where(parts.c.job == job.id))
                rows = []
        return {part: msgspec.msgpack.decode(result, type=PartResult) for part, result in rows}

    def is_finished(self, name: str) -> bool:
        parts = self._parts
        with _translated(self._url), self._begun() as connection:
            parts.create(connection, checkfirst=True)
            found = connection.execute(sa.select(parts.c.result).where(parts.c.part == _FINISHED)).scalars()
            return bool(name) and any(msgspec.msgpack.decode(each)["name"] == name for each in found)

    def write(self, answers: pa.Table, result: PartResult) -> None:
        try:
            with self._begun() as connection:
                try:
                    row = {"job": self._job.id, "part": result.part, "result": msgspec.msgpack.encode(result)}
                    connection.execute(self._parts.insert(), row)
                except IntegrityError:
                    connection.rollback()
                    return  # another process was faster
                _insert(connection, self._staging, answers)
        except IntegrityError as error:
            raise InvalidInputError(
                f"two rows have the same key ({', '.join(self._key)}), or a row has none: {first_line(error.orig or error)}"
            ) from error
        except SQLAlchemyError as error:
            raise UnavailableError(f"{self.address} cannot be written: {first_line(error)}") from error

    def finish(self, results: Sequence[PartResult]) -> None:  # noqa: ARG002 - the parts' table has them
        target, staging, parts = self._table(self._name), self._staging, self._parts
        names = [column.name for column in staging.columns]
        same = sa.and_(*(target.c[each] == staging.c[each] for each in self._key))
        with _translated(self._url), self._begun() as connection:
            connection.execute(target.delete().where(sa.exists(sa.select(1).select_from(staging).where(same))))
            connection.execute(target.insert().from_select(names, sa.select(staging)))
            connection.execute(parts.delete().where(parts.c.job == self._job.id))
            told = {"job": self._job.id, "part": _FINISHED, "result": msgspec.msgpack.encode(self._job)}
            connection.execute(parts.insert(), told)
            staging.drop(connection)

    @contextmanager
    def _begun(self) -> Iterator[Any]:
        if self._opened is None:
            self._opened = _engine(self._url, writes=True)
        with self._opened.begin() as connection:
            yield connection

    @property
    def _staging(self) -> sa.Table:
        return self._table(f"{self._name}_penstock_{self._job.id[:8]}")

    @property
    def _parts(self) -> sa.Table:
        return sa.Table(
            PARTS,
            sa.MetaData(),
            sa.Column("job", sa.String(64), primary_key=True),
            sa.Column("part", sa.BigInteger(), primary_key=True, autoincrement=False),
            sa.Column("result", sa.LargeBinary(), nullable=False),
            schema=self._schema_name,
        )

    @property
    def _schema_name(self) -> str | None:
        return self._name.rpartition(".")[0] or None

    def _table(self, name: str) -> sa.Table:
        columns = [
            sa.Column(field.name, _sql_type(field), primary_key=field.name in self._key, autoincrement=False)
            for field in self._schema
        ]
        return sa.Table(name.rpartition(".")[2], sa.MetaData(), *columns, schema=self._schema_name)

    def _check_target(self, connection: Any) -> None:
        table = self._name.rpartition(".")[2]
        own = {each["name"] for each in sa.inspect(connection).get_columns(table, schema=self._schema_name)}
        lacking = [name for name in self._schema.names if name not in own]
        if lacking:
            raise InvalidInputError(
                f"table {self._name!r} has no column {lacking[0]!r}; the answers are {', '.join(self._schema.names)}"
            )


def _sql_type(field: pa.Field) -> Any:
    for test, found in _TYPES:
        if test(field.type):
            return found
    raise InvalidInputError(f"column {field.name!r} holds {field.type}, which goes into no table; write Parquet")


def _insert(connection: Any, table: sa.Table, answers: pa.Table) -> None:
    """Inserts rows, by COPY where the driver has it: twenty times as fast as one statement per row."""
    if not answers.num_rows:
        return
    driver = connection.dialect.driver
    if connection.dialect.name == "postgresql" and driver in ("psycopg", "pg8000"):
        sink = pa.BufferOutputStream()
        pc.write_csv(answers, sink, pc.WriteOptions(include_header=False, quoting_style="all_valid"))
        quote = connection.dialect.identifier_preparer
        names = ", ".join(map(quote.quote, answers.column_names))
        statement = f"COPY {quote.format_table(table)} ({names}) FROM STDIN WITH (FORMAT csv)"
        cursor = connection.connection.cursor()
        try:
            if driver == "psycopg":
                with cursor.copy(statement) as copy:
                    copy.write(sink.getvalue())
            else:
                cursor.execute(statement, stream=io.BytesIO(sink.getvalue()))
        except connection.dialect.loaded_dbapi.Error as error:
            raise _as_integrity(error, statement) from error
        return
    connection.execute(table.insert(), answers.to_pylist())


def _as_integrity(error: Any, statement: str) -> SQLAlchemyError:
    """What a driver raised of a COPY, which passes by SQLAlchemy."""
    is_key = "23505" in str(error) or "23502" in str(error) or getattr(error, "sqlstate", "") in ("23505", "23502")
    return (IntegrityError if is_key else sa.exc.DBAPIError)(statement, None, error)
