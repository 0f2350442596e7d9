"""Rows of the request log as a table: one version's, of a period, thinned evenly when there are more than are needed.

Raw columns keep their names and outputs are `output.NAME`; columns of lists are left out. Whoever compares periods or
draws reports calls it.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_server.paths import file_name_for
from penstock_server.request_log.files import PARQUET
from penstock_server.request_log.parquet import INPUT

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS: Final = 200_000
"""Rows of one table; of more, every n-th is read."""
TIME: Final = "time"
_ABOUT: Final = ("request_id", "row", "model", "version", "role")


def read(
    directory: Path, model: str, version: str = "", *, start: str | None = None, end: str | None = None
) -> "pd.DataFrame":
    """The logged rows of a model's version, in the order of time.

    Args:
        directory: the log's, as `[request_log]` names it.
        model: the model's name.
        version: a version, or an alias such as "@canary" for what answered in that part last; "" for the last logged.
        start: those since then, as ISO 8601 writes it; UTC when it names no zone.
        end: those before then.

    Returns:
        A frame with `time`, the raw columns and the outputs; an empty text is None.

    Raises:
        InvalidInputError: the directory or a time is none.
        NotFoundError: nothing like it was logged; says what to do.
    """
    since, until = moment(start, "--from"), moment(end, "--to")
    if not directory.is_dir():
        raise InvalidInputError(f"{directory} is no directory; expected that of [request_log] in the server's settings")
    for folder in _folders(directory / file_name_for(model), version):
        table = _table(folder, version, since, until)
        if len(table):
            return _frame(table)
    raise NotFoundError(
        f"no rows of model {model!r}{f' version {version}' if version else ''} are in {directory} for that period; files "
        "appear there when they are as large or as old as request_log.rotate_bytes and rotate_s say"
    )


def moment(text: str | None, option: str) -> datetime | None:
    """A time as ISO 8601 writes it; UTC when it names no zone.

    Raises:
        InvalidInputError: it is none; names the option.
    """
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise InvalidInputError(
            f"{option} is {text!r}; expected a time such as 2026-05-01 or 2026-05-01T12:30"
        ) from error
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _folders(model: Path, version: str) -> list[Path]:
    """The folders of the versions that may be meant, the one with the newest file first."""
    if version and not version.startswith("@"):
        return [model / file_name_for(version)]
    newest = {folder: max((file.name for file in folder.glob(f"*{PARQUET}")), default="") for folder in model.glob("*")}
    return sorted((folder for folder, file in newest.items() if file), key=lambda folder: newest[folder], reverse=True)


def _table(folder: Path, version: str, since: datetime | None, until: datetime | None) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    files = sorted(folder.glob(f"*{PARQUET}"))
    if not files:
        return pa.table({})
    try:
        rows = ds.dataset(files, format="parquet")
        chosen = [pc.field(TIME) >= since] * (since is not None) + [pc.field(TIME) < until] * (until is not None)
        chosen += [pc.field("role") == version[1:]] * version.startswith("@")
        condition = pc.scalar(True)
        for each in chosen:
            condition &= each
        return _thinned(rows, condition).sort_by(TIME)
    except (OSError, pa.ArrowException) as error:
        raise InvalidInputError(f"a file in {folder} cannot be read: {error}") from error


def _thinned(rows: Any, condition: Any) -> Any:
    """The rows, or every n-th of them: read batch by batch, so that a long log is never held whole."""
    import pyarrow as pa

    step = max(1, -(-rows.count_rows(filter=condition) // MOST_ROWS))
    columns = _columns(rows.schema)
    kept, passed = [], 0
    for batch in rows.to_batches(columns=columns, filter=condition):
        kept.append(batch.take(pa.array(range(-passed % step, len(batch), step), pa.int64())))
        passed += len(batch)
    return pa.Table.from_batches(kept, pa.schema([rows.schema.field(name) for name in columns]))


def _columns(schema: Any) -> list[str]:
    import pyarrow.types as pt

    return [field.name for field in schema if field.name not in _ABOUT and not pt.is_list(field.type)]


def _frame(table: Any) -> "pd.DataFrame":
    frame: pd.DataFrame = table.to_pandas()
    frame = frame.rename(columns={name: name.removeprefix(INPUT) for name in frame.columns})
    for name in texts(frame):
        frame[name] = frame[name].astype(object).where(frame[name] != "", None)
    return frame


def texts(frame: "pd.DataFrame") -> list[str]:
    """The columns of a frame that hold text."""
    return [name for name in frame.columns if frame[name].dtype.kind not in "biufM"]
