"""A report by Evidently from a server's request log: its later half against the earlier, or the log against a file of rows.

Decides the two sides and the kind of each column; the tests and thresholds are Evidently's. Evidently is optional and best
installed in an environment of its own, since it needs an older pandas. The log's rows are a table of their own (`read_log`):
raw columns keep their names, outputs are `output.NAME`, columns of lists are left out.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.paths import file_name_for
from penstock_server.request_log.files import PARQUET
from penstock_server.request_log.parquet import INPUT

if TYPE_CHECKING:
    import pandas as pd

LEAST_ROWS: Final = 2
_ADVICE: Final = "run in an environment of its own: pip install 'penstock[evidently]'"
MOST_ROWS: Final = 200_000
"""A longer log is read as every n-th row."""
TIME: Final = "time"
_ABOUT: Final = ("request_id", "row", "model", "version", "role", "trace_id", "weight")


def write_report(
    file: Path,
    model: str,
    *,
    log: Path | None,
    version: str = "",
    reference: Path | None = None,
    start: str | None = None,
    end: str | None = None,
) -> None:
    """Writes the report.

    Args:
        file: the page to write.
        model: the model's name.
        log: the request log's directory.
        version: a version, or an alias such as "@canary"; "" for the last logged.
        reference: rows to compare with, .csv or .parquet, with the version's raw columns; None compares the later half
            of the period with the earlier.
        start: leaves out rows that were logged before this time.
        end: leaves out rows that were logged at this time or later.

    Raises:
        InvalidInputError: the log is no directory, a time is not ISO 8601, or the reference cannot be used.
        NotFoundError: no such rows were logged.
        UnavailableError: Evidently is not installed or does not run here, or the page cannot be written.
    """
    if log is None:
        raise InvalidInputError("--evidently needs the request log; name its directory with --log")
    evidently = _evidently()
    rows = read_log(log, model, version, start=start, end=end).drop(columns=TIME)
    known, now = halves(rows) if reference is None else against(read_reference(reference), rows)
    snapshot = _snapshot(evidently, known, now)
    try:
        snapshot.save_html(str(file))
    except OSError as error:
        raise UnavailableError(f"{file} cannot be written: {error.strerror}") from error


def halves(rows: "pd.DataFrame") -> "tuple[pd.DataFrame, pd.DataFrame]":
    """The earlier and the later half.

    Raises:
        InvalidInputError: there are too few rows for two.
    """
    if len(rows) < 2 * LEAST_ROWS:
        raise InvalidInputError(f"{len(rows)} rows were logged in that period, expected at least {2 * LEAST_ROWS}")
    return rows.iloc[: len(rows) // 2], rows.iloc[len(rows) // 2 :]


def against(reference: "pd.DataFrame", rows: "pd.DataFrame") -> "tuple[pd.DataFrame, pd.DataFrame]":
    """The reference, and the rows with its columns: the outputs may be absent there.

    Raises:
        InvalidInputError: a raw column is not in the reference; names those it has.
    """
    needed = [name for name in rows.columns if not name.startswith("output.")]
    if missing := [name for name in needed if name not in reference.columns]:
        listed = ", ".join(map(str, list(reference.columns)[:20]))
        raise InvalidInputError(f"the reference has no column {missing[0]!r}; it has {listed}")
    shared = [name for name in rows.columns if name in reference.columns]
    return reference[shared], rows[shared]


def read_reference(file: Path) -> "pd.DataFrame":
    """The rows in a .csv or .parquet file.

    Raises:
        InvalidInputError: it is neither, or cannot be read.
    """
    import pandas as pd

    readers: dict[str, Any] = {".csv": pd.read_csv, ".parquet": pd.read_parquet}
    reader = readers.get(file.suffix)
    if reader is None:
        raise InvalidInputError(f"{file} is neither .csv nor .parquet; expected one of them")
    try:
        frame: pd.DataFrame = reader(file)
    except OSError as error:
        raise InvalidInputError(f"{file} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise InvalidInputError(f"{file} is no {file.suffix[1:]} file: {error}") from error
    return frame


def kinds(frame: "pd.DataFrame") -> tuple[list[str], list[str]]:
    """The columns of numbers, and those of categories: text, truth values, and outputs that are whole numbers."""
    categories = text_columns(frame)
    categories += [
        name
        for name in frame.columns
        if frame[name].dtype.kind == "b" or (name.startswith("output.") and frame[name].dtype.kind in "iu")
    ]
    return [name for name in frame.columns if name not in categories], categories


def _evidently() -> Any:
    try:
        import evidently
        import evidently.presets
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "evidently":
            raise UnavailableError(f"--evidently needs Evidently, which is not installed; {_ADVICE}") from error
        raise
    except ImportError as error:
        raise UnavailableError(
            f"Evidently does not run with the packages installed here ({error}); {_ADVICE}"
        ) from error
    return evidently


def _snapshot(evidently: Any, known: "pd.DataFrame", now: "pd.DataFrame") -> Any:
    numbers, categories = kinds(now)
    definition = evidently.DataDefinition(numerical_columns=numbers, categorical_columns=categories)
    sides = [evidently.Dataset.from_pandas(side, data_definition=definition) for side in (now, known)]
    return evidently.Report([evidently.presets.DataDriftPreset()]).run(*sides)


def read_log(
    directory: Path, model: str, version: str = "", *, start: str | None = None, end: str | None = None
) -> "pd.DataFrame":
    """The logged rows of a model's version, in the order of time.

    Args:
        directory: the log's, as `[request_log]` names it.
        model: the model's name.
        version: a version, or an alias such as "@canary" for what last answered in that role; "" for the last logged.
        start: leaves out rows before this time, in ISO 8601; UTC if it names no zone.
        end: leaves out rows at this time or later.

    Returns:
        A frame with `time`, the raw columns and the outputs; an empty text is None.

    Raises:
        InvalidInputError: there is no such directory, or a time is not ISO 8601.
        NotFoundError: no such rows were logged; says what to do.
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
    """A time in ISO 8601; UTC if it names no zone.

    Raises:
        InvalidInputError: the text is no such time; names the option.
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
    for name in text_columns(frame):
        frame[name] = frame[name].astype(object).where(frame[name] != "", None)
    return frame


def text_columns(frame: "pd.DataFrame") -> list[str]:
    """The columns of a frame that hold text."""
    return [name for name in frame.columns if frame[name].dtype.kind not in "biufM"]
