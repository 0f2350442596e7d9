"""Writes a prediction's request as bytes: the options, checked here, and the tensors that `tensors` laid out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from penstock import inference_pb2
from penstock.names import PARAMETER_EXPLAIN, PARAMETER_EXTRA_COLUMNS, PARAMETER_PRIORITY, PARAMETER_ROUTING_KEY
from penstock.tensors import to_raw
from penstock_client.errors import InvalidRequestError
from penstock_client.tensors import Extra, InputTensor

UINT64_LIMIT = 2**64


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOptions:
    """The options of one prediction, without its rows.

    Attributes:
        version: a version's name or an alias such as "@champion"; empty leaves the choice to the server.
        outputs: the names of the outputs to return; None for all.
        routing_key: requests with the same key go to the same version while a canary grows.
        request_id: sent as the request's id and echoed; None sends none.
        priority: the server's queue priority, 1 the highest; None leaves it to the server.
        extra: "ignore" leaves out columns that the model does not take, "refuse" refuses them.
        explain: asks for attributions too.
    """

    model: str
    version: str = ""
    outputs: Sequence[str] | None = None
    routing_key: str | None = None
    request_id: str | None = None
    priority: int | None = None
    extra: Extra = "ignore"
    explain: bool = False

    def check(self) -> None:
        """Raises `InvalidRequestError` for an option of the wrong type or range."""
        if not self.model:
            raise InvalidRequestError("the model's name is empty")
        if isinstance(self.outputs, str):
            raise InvalidRequestError(f"outputs is expected as a list of names, got the string {self.outputs!r}")
        for name in ("model", "version", "routing_key", "request_id"):
            _check_text(name, getattr(self, name))
        if self.priority is not None and not 0 <= self.priority < UINT64_LIMIT:
            raise InvalidRequestError(f"priority is expected from 0 to 2**64 - 1, got {self.priority}")
        if self.extra not in get_args(Extra):
            raise InvalidRequestError(f"extra is expected as 'ignore' or 'refuse', got {self.extra!r}")


def _check_text(name: str, value: object) -> None:
    if value is not None and not isinstance(value, str):
        raise InvalidRequestError(f"{name} is expected as a string, got {value!r}")


def infer_payload(options: RequestOptions, tensors: Sequence[InputTensor], *, for_any_version: bool = False) -> bytes:
    """The serialized `ModelInferRequest`, its tensors raw; with `for_any_version` a server takes what it needs of them."""
    request = inference_pb2.ModelInferRequest(
        model_name=options.model,
        model_version=options.version,
        id=options.request_id or "",
        inputs=[_tensor(tensor) for tensor in tensors],
        outputs=[
            inference_pb2.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in options.outputs or ()
        ],
        raw_input_contents=[to_raw(tensor.values) for tensor in tensors],
    )
    if options.routing_key is not None:
        request.parameters[PARAMETER_ROUTING_KEY].string_param = options.routing_key
    if for_any_version:
        request.parameters[PARAMETER_EXTRA_COLUMNS].string_param = "ignore"
    if options.explain:
        request.parameters[PARAMETER_EXPLAIN].bool_param = True
    if options.priority is not None:
        request.parameters[PARAMETER_PRIORITY].uint64_param = options.priority
    return request.SerializeToString()


def _tensor(tensor: InputTensor) -> inference_pb2.ModelInferRequest.InferInputTensor:
    return inference_pb2.ModelInferRequest.InferInputTensor(
        name=tensor.name, datatype=tensor.datatype, shape=tensor.values.shape
    )
