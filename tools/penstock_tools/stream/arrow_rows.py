"""Any number of rows per message as an Arrow IPC stream, and the answers as one of as many rows.

The stream brings its schema, so nothing else need say what is in it. This is for producers that have many rows at hand: a
message has some 300 bytes of its own.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from penstock_tools.stream.codec import Codec, Rows, Shape, checked_names


class ArrowRows(Codec):
    """Reads and writes Arrow for one version.

    Raises:
        InvalidInputError: a field is kept that an answer's name hides.
    """

    def __init__(self, shape: Shape) -> None:
        checked_names(shape)
        self._shape = shape

    def read(self, values: Sequence[bytes]) -> Rows:
        unreadable: dict[int, str] = {}
        tables: list[Any] = []
        kept: list[Any] = []
        places: list[int] = []
        for place, value in enumerate(values):
            try:
                with pa.ipc.open_stream(value) as stream:
                    table = stream.read_all()
                found = self._columns(table)
                kept.append([table.column(name) for name in self._shape.keep])
            except _Unreadable as error:
                unreadable[place] = str(error)
            except (pa.ArrowException, OSError, KeyError) as error:
                unreadable[place] = f"it is no Arrow stream: {str(error).splitlines()[0][:200]}"
            else:
                tables.append(found)
                places.append(place)
        whole = pa.concat_tables([self._shape.columns.empty_table(), *tables]).combine_chunks()
        batches = whole.to_batches()
        batch = batches[0] if batches else pa.RecordBatch.from_pylist([], schema=self._shape.columns)
        return Rows(batch, places, [table.num_rows for table in tables], unreadable, kept)

    def write(self, rows: Rows, answered: Sequence[int], answers: pa.RecordBatch) -> list[bytes]:
        assert rows.counts is not None
        found, first = [], 0
        names = checked_names(self._shape)
        for at in answered:
            count = rows.counts[at]
            part = answers.slice(first, count)
            first += count
            own = [pa.array([text] * count, pa.string()) for text in (self._shape.model, self._shape.version)]
            kept = [column.combine_chunks() for column in rows.kept[at]]
            batch = pa.RecordBatch.from_arrays([*kept, *own, *part.columns], names=names)
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as stream:
                stream.write_batch(batch)
            found.append(sink.getvalue().to_pybytes())
        return found

    def _columns(self, table: Any) -> Any:
        """The version's columns of a message, with its types."""
        lacking = [name for name in (*self._shape.columns.names, *self._shape.keep) if name not in table.column_names]
        if lacking:
            raise _Unreadable(
                f"it lacks column {lacking[0]!r}; the version takes {', '.join(self._shape.columns.names)}"
            )
        try:
            return table.select(self._shape.columns.names).cast(self._shape.columns)
        except (pa.ArrowException, ValueError) as error:
            raise _Unreadable(f"a column is of another type: {str(error).splitlines()[0][:200]}") from None


class _Unreadable(Exception):  # noqa: N818 - a reason, not an error of ours
    """Why a message's table has no rows of the version."""
