"""How much each raw column matters to a model: what shuffling it among the rows of a sample costs, and the file that keeps it.

Publishing computes it. Drift reports show it beside each column: drift of a column that the model hardly reads can wait.
"""

from math import isfinite
from typing import Final

import msgspec

from penstock_server.errors import InvalidInputError
from penstock_server.features.spec import limits
from penstock_server.features.spec.spec import FeatureSpec, decode_file

FORMAT = 1
MAX_MEASURE = 200


class Importance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The permutation importance of raw columns.

    Attributes:
        measure: what the values are, for people, such as "AUC lost".
        values: by the column's name; around 0 where the model does not need it.
        rows: of the sample that was shuffled.
        repeats: how often each column was.
        format: the file's format.
    """

    measure: str
    values: dict[str, float]
    rows: int
    repeats: int
    format: int = FORMAT

    def __post_init__(self) -> None:
        limits.at_most("columns", len(self.values), limits.MAX_COLUMNS)
        if len(self.measure) > MAX_MEASURE or not self.measure.isprintable():
            raise ValueError(f"measure is {self.measure[:40]!r}, expected up to {MAX_MEASURE} printable characters")
        for name, value in self.values.items():
            if not isfinite(value):
                raise ValueError(f"the importance of {name[:40]!r} is {value}, expected a finite number")


_importances: Final = msgspec.json.Decoder(Importance)


def encode(importance: Importance) -> bytes:
    """The file's content, as JSON."""
    return msgspec.json.encode(importance)


def decode(data: bytes) -> Importance:
    """Decodes an untrusted file.

    Raises:
        InvalidInputError: it is no importance of this format.
    """
    return decode_file(data, _importances, FORMAT, "importance")


def check(importance: Importance, spec: FeatureSpec) -> None:
    """Checks that it is about columns of this specification.

    Raises:
        InvalidInputError: it names another column.
    """
    known = {column.name for column in spec.columns}
    others = [name for name in importance.values if name not in known]
    if others:
        raise InvalidInputError(f"the importance names the column {others[0][:40]!r}, which the features do not have")
