"""A report by Evidently, from a server's request log: two periods compared, or the log and rows of your own.

Decides the two sides and what kind each column is of; the tests and thresholds are Evidently's. It is optional, and an
environment of its own suits it, since it lags behind pandas.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_tools.drift import log_rows

if TYPE_CHECKING:
    import pandas as pd

LEAST_ROWS: Final = 2
_ADVICE: Final = "run in an environment of its own: pip install 'penstock[evidently]'"


def write(
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
        start: of the rows logged, those since then.
        end: of the rows logged, those before then.

    Raises:
        InvalidInputError: the log, a time or the reference is none.
        NotFoundError: nothing like it was logged.
        UnavailableError: Evidently is not installed or does not run here, or the page cannot be written.
    """
    if log is None:
        raise InvalidInputError("--evidently needs the request log; name its directory with --log")
    evidently = _evidently()
    rows = log_rows.read(log, model, version, start=start, end=end).drop(columns=log_rows.TIME)
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
    words = log_rows.texts(frame)
    words += [
        name
        for name in frame.columns
        if frame[name].dtype.kind == "b" or (name.startswith("output.") and frame[name].dtype.kind in "iu")
    ]
    return [name for name in frame.columns if name not in words], words


def _evidently() -> Any:
    try:
        import evidently
        import evidently.presets
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "evidently":
            raise UnavailableError(f"--evidently needs Evidently, which is not installed; {_ADVICE}") from error
        raise
    except ImportError as error:
        raise UnavailableError(f"Evidently does not run beside what is installed here ({error}); {_ADVICE}") from error
    return evidently


def _snapshot(evidently: Any, known: "pd.DataFrame", now: "pd.DataFrame") -> Any:
    numbers, words = kinds(now)
    definition = evidently.DataDefinition(numerical_columns=numbers, categorical_columns=words)
    sides = [evidently.Dataset.from_pandas(side, data_definition=definition) for side in (now, known)]
    return evidently.Report([evidently.presets.DataDriftPreset()]).run(*sides)
