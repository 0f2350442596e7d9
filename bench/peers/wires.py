"""How the peers' answers are read where they differ from the others' in form. Decides shapes alone; the values must agree.

Called by `catalogue`.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from bench import inference
from bench.protocols import GRPC, JSON, GrpcWire, JsonWire, Wire
from penstock import inference_pb2 as pb


class ColumnsWire(GrpcWire):
    """The Open Inference Protocol from servers that give every output two axes: [N] comes as [N, 1]."""

    def check(self, address: str, sent: Sequence[bytes], outputs: list[inference.Outputs], timeout_s: float) -> None:
        inference.first_answer(address, sent[0], timeout_s=timeout_s)
        inference.check(address, tuple(sent), outputs, read=columns)


class RowsWire(JsonWire):
    """JSON from servers that split a batch by its rows: a list with one object of outputs a row."""

    def read(self, answer: Any) -> inference.Outputs:
        return {name: np.asarray([row[name] for row in answer]) for name in answer[0]}


def columns(response: pb.ModelInferResponse) -> inference.Outputs:
    """The outputs of a response, those of shape [N, 1] as [N]."""
    outputs = inference.decode(response)
    return {name: array[:, 0] if array.shape[1:] == (1,) else array for name, array in outputs.items()}


WIRES: Final[Mapping[str, Wire]] = MappingProxyType(
    {"grpc": GRPC, "grpc-columns": ColumnsWire(), "json": JSON, "json-rows": RowsWire()}
)
"""By the names that `peers.toml` gives them."""
