"""True answers by request id: what later turned out to be right, from a file or from the labels that a server keeps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from penstock_server.errors import InvalidInputError, first_line
from penstock_server.labels.kept import KeptLabels

ID: Final = ("id", "request_id")
LABEL: Final = "label"
ROW: Final = "row"


class Truth(Protocol):
    """True answers."""

    def of(self, ids: Sequence[str], rows: Sequence[int]) -> Sequence[Any]:
        """The label of each row of these requests; None where there is none."""
        ...


def truth_of(path: Path, model: str) -> Truth:
    """What is known of a model's requests.

    Args:
        path: a file, as `TruthFile` reads it, or the folder of labels of a server, as `[labels] folder` names it.
        model: the model's name.

    Raises:
        InvalidInputError: it is neither, or does not read.
    """
    return KeptLabels(path, model) if path.is_dir() else TruthFile(path)


class TruthFile:
    """The true answer of each row that has one.

    Args:
        path: a .csv or .parquet file with the columns `id` (or `request_id`) and `label`, and `row`, the row's place in its
            request, where requests have several.

    Raises:
        InvalidInputError: there is no such file, it lacks a column, or it has two labels for a row.
    """

    def __init__(self, path: Path) -> None:
        frame = _read(path)
        key = next((name for name in ID if name in frame.columns), None)
        if key is None or LABEL not in frame.columns:
            raise InvalidInputError(
                f"{path} has the columns {', '.join(map(str, frame.columns))}; expected id and label, and row where requests "
                "have several rows"
            )
        frame = frame[frame[LABEL].notna()]
        rows = frame[ROW].astype(int).tolist() if ROW in frame.columns else [0] * len(frame)
        keys = list(zip(frame[key].astype(str).tolist(), rows, strict=True))
        self._labels: dict[tuple[str, int], Any] = dict(zip(keys, frame[LABEL].tolist(), strict=True))
        if len(self._labels) != len(keys):
            raise InvalidInputError(
                f"{path} has {len(keys):,} labels for {len(self._labels):,} rows; expected one label for a row"
            )

    def __len__(self) -> int:
        return len(self._labels)

    def of(self, ids: Sequence[str], rows: Sequence[int]) -> list[Any]:
        """The label of each row of these requests; None where there is none."""
        return [self._labels.get(key) for key in zip(ids, rows, strict=True)]


def _read(path: Path) -> Any:
    import pandas as pd

    if path.suffix not in (".csv", ".parquet"):
        raise InvalidInputError(f"{path} is no file of labels; expected .csv or .parquet")
    if not path.is_file():
        raise InvalidInputError(f"there is no file {path}; expected labels as .csv or .parquet")
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=dict.fromkeys(ID, str))
    except (ValueError, OSError) as error:
        raise InvalidInputError(f"{path} does not read as {path.suffix[1:]}: {first_line(error)}") from error
