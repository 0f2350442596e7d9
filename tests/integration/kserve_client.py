"""A caller on KServe's SDK, in an environment of its own: asks in the forms that its users write, and prints the answers.

Its arguments are the server's address and nothing else; what it prints is one object of JSON.
"""

import asyncio
import json
import sys
from typing import Any

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest


def raw(name: str, datatype: str, values: np.ndarray) -> InferInput:
    made = InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


FORMS: dict[str, tuple[str, list[InferInput]]] = {
    "list": ("flag", [InferInput("X", [2, 2], "FP32", data=[1.0, 2.0, -1.0, -3.0])]),
    "array": ("flag", [raw("X", "FP32", np.array([[1, 2], [-1, -3]], np.float32))]),
    "strings": (
        "strings",
        [InferInput("text", [1, 2], "BYTES", data=["a", "é"]), InferInput("x", [1, 2], "FP32", data=[1.5, 2.5])],
    ),
    "array of strings": (
        "strings",
        [raw("text", "BYTES", np.array([["a", "é"]], object)), raw("x", "FP32", np.array([[1.5, 2.5]], np.float32))],
    ),
}


async def main(address: str) -> None:
    found: dict[str, Any] = {}
    async with InferenceGRPCClient(address, timeout=20, retries=2) as client:
        found["live"], found["ready"] = await client.is_server_live(), await client.is_server_ready()
        found["model"] = await client.is_model_ready("flag")
        for form, (model, inputs) in FORMS.items():
            reply = await client.infer(InferRequest(model_name=model, infer_inputs=inputs, request_id=form))
            first = reply.outputs[0].as_numpy().tolist()
            found[form] = [reply.id, reply.model_version, first]
        try:
            await client.infer(InferRequest(model_name="nothing", infer_inputs=FORMS["array"][1]))
        except grpc.aio.AioRpcError as error:
            found["unknown"] = [error.code().name, error.details()]
    print(json.dumps(found, default=bytes.decode))


asyncio.run(main(sys.argv[1]))
