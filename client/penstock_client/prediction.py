"""What a prediction is to the caller: the outputs by name, and how they came about. Made by `reply`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Timing:
    """Where the time of the answered attempt went; None where the server does not say.

    Attributes:
        queue_s: seconds the request waited at the server.
        compute_s: seconds the model ran.
        batch_rows: rows of the batch that it ran in, other callers' included.
        round_trip_s: seconds from sending to the answer, seen here; earlier attempts and pauses are not in it.
    """

    queue_s: float | None
    compute_s: float | None
    batch_rows: int | None
    round_trip_s: float


@dataclass(frozen=True, slots=True, eq=False)
class Prediction(Mapping[str, NDArray[Any]]):
    """A model's outputs by name, in the order that the server gave them.

    The arrays are read-only views of the reply; copy one to change it. Outputs of datatype BYTES are arrays of objects:
    `str` where the bytes are UTF-8, else `bytes`.

    Attributes:
        outputs: the arrays by name.
        model: the name of the model that answered.
        version: the version that answered.
        role: why that version, such as "champion" or "canary"; None where the server does not say.
        request_id: the request's id, which labels are joined by; None where it had none.
        timing: where the time went.
    """

    outputs: Mapping[str, NDArray[Any]]
    model: str
    version: str
    role: str | None
    request_id: str | None
    timing: Timing

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.outputs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.outputs)

    def __len__(self) -> int:
        return len(self.outputs)
