"""What is kept beside a pipeline: how it is loaded, what its rows look like, and what it answers with.

`penstock/python.json` holds a `Description`. Publishing writes it. A server reads it before it starts a process, which makes
of a request's raw blocks what the pipeline was given when it was published. The file is untrusted, so its sizes are bounded.
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from penstock_server.errors import InvalidInputError

SKOPS: Final = "pipeline.skops"
PICKLE: Final = "pipeline.pkl"

MAX_COLUMNS: Final = 4096
MAX_OUTPUTS: Final = 256
MAX_WIDTH: Final = 65536
MAX_CATEGORIES: Final = 65536
MAX_TRUSTED: Final = 4096

Datatype = Literal["FP64", "FP32", "FP16", "INT64", "BOOL", "BYTES"]
Method = Literal["predict", "predict_proba", "decision_function", "transform"]
Container = Literal["frame", "series", "array"]


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A column of the rows that the pipeline takes.

    Attributes:
        name: as requests call it, too.
        kind: what requests send: numbers, times as nanoseconds since 1970 in UTC, or text.
        dtype: of the column, as pandas writes it, such as "float64", "object", "category" or "Int64".
        missing: what stands for a value that is not there; "empty" leaves an empty text as it is.
        values: what numbers are in a column of objects or categories.
        categories: of a column of categories, in their order.
        is_ordered: whether the order of the categories means something.
    """

    name: str
    kind: Literal["number", "text", "time"] = "number"
    dtype: str = "float64"
    missing: Literal["NaN", "None", "NA", "empty"] = "NaN"
    values: Literal["float", "int", "bool", "Decimal"] = "float"
    categories: tuple[str | int | float | bool, ...] | None = None
    is_ordered: bool = False

    def __post_init__(self) -> None:
        if self.categories is not None:
            _at_most(f"categories of column {self.name!r}", len(self.categories), MAX_CATEGORIES)


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One output.

    Attributes:
        name: in replies.
        datatype: the protocol's name of its type.
        method: of the pipeline, which gives it.
        width: how many values a row has; None where the output has one dimension.
        member: its place where the method gives a list, one array per target.
    """

    name: str
    datatype: Datatype
    method: Method
    width: int | None = None
    member: int | None = None

    def __post_init__(self) -> None:
        if self.width is not None and not 1 <= self.width <= MAX_WIDTH:
            raise InvalidInputError(f"output {self.name!r} is {self.width} wide; expected 1 to {MAX_WIDTH:,}")


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The content of `penstock/python.json`.

    Attributes:
        file: the pipeline's file in the version's folder.
        container: what the pipeline takes: a frame, a series of one column, or an array.
        columns: in the pipeline's order.
        outputs: in the order of replies.
        reason: why the pipeline is not compiled, in one sentence.
        requirements: the packages that it needs and their versions when it was published.
        trusted: the types that skops may load besides those that it knows.
        format: the version of the file's format.
    """

    file: Literal["pipeline.skops", "pipeline.pkl"]
    container: Container
    columns: tuple[Column, ...]
    outputs: tuple[Output, ...]
    reason: str
    requirements: Mapping[str, str]
    trusted: tuple[str, ...] = ()
    format: int = 1

    def __post_init__(self) -> None:
        for what, names in (("column", self.columns), ("output", self.outputs)):
            if not names:
                raise InvalidInputError(f"there are no {what}s; expected at least one")
            if len({each.name for each in names}) != len(names):
                raise InvalidInputError(f"a {what} is named twice; expected each once")
        _at_most("columns", len(self.columns), MAX_COLUMNS)
        _at_most("outputs", len(self.outputs), MAX_OUTPUTS)
        _at_most("trusted types", len(self.trusted), MAX_TRUSTED)
        if self.container == "series" and len(self.columns) != 1:
            raise InvalidInputError(f"a series has one column; there are {len(self.columns)}")

    @property
    def numbers(self) -> tuple[str, ...]:
        """The names of the columns that requests send as numbers."""
        return self._named("number")

    @property
    def times(self) -> tuple[str, ...]:
        """The names of the columns that requests send as nanoseconds."""
        return self._named("time")

    @property
    def strings(self) -> tuple[str, ...]:
        """The names of the columns that requests send as text."""
        return self._named("text")

    def _named(self, kind: str) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns if column.kind == kind)


DECODER: Final = msgspec.json.Decoder(Description)
"""Of the untrusted file, for `strict_json.decode`."""


def encode(description: Description) -> bytes:
    """The description as indented JSON: people read it in MLflow's pages."""
    fields = {**msgspec.to_builtins(description), "format": description.format}
    return msgspec.json.format(msgspec.json.encode(fields), indent=2)


def _at_most(what: str, found: int, most: int) -> None:
    if found > most:
        raise InvalidInputError(f"there are {found:,} {what}; expected at most {most:,}")
