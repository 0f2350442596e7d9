"""A caller on KServe's SDK, in an environment of its own: asks in the forms that its users write, and prints the answers.

Its arguments are the server's addresses, of gRPC and of REST; what it prints is one object of JSON for each.
"""

import asyncio
import json
import sys
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig


def raw(name: str, datatype: str, values: np.ndarray) -> InferInput:
    made = InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def forms() -> dict[str, tuple[str, list[InferInput]]]:
    """What is asked; made anew each time, since the SDK changes what it has sent."""
    rows, texts = np.array([[1, 2], [-1, -3]], np.float32), np.array([["a", "é"]], object)
    return {
        "list": ("flag", [InferInput("X", [2, 2], "FP32", data=[1.0, 2.0, -1.0, -3.0])]),
        "array": ("flag", [raw("X", "FP32", rows)]),
        "strings": (
            "strings",
            [InferInput("text", [1, 2], "BYTES", data=["a", "é"]), InferInput("x", [1, 2], "FP32", data=[1.5, 2.5])],
        ),
        "array of strings": (
            "strings",
            [raw("text", "BYTES", texts), raw("x", "FP32", np.array([[1.5, 2.5]], np.float32))],
        ),
    }


async def rest(address: str) -> dict[str, Any]:
    """The same over REST."""
    found: dict[str, Any] = {}
    client = InferenceRESTClient(RESTConfig(protocol="v2", timeout=20, retries=0))
    base = f"http://{address}"
    found["live"], found["ready"] = await client.is_server_live(base), await client.is_server_ready(base)
    found["model"] = await client.is_model_ready(base, "flag")
    for form, (model, inputs) in forms().items():
        asked = InferRequest(model_name=model, infer_inputs=inputs, request_id=form)
        reply = await client.infer(base, asked, model_name=model)
        found[form] = [reply.id, reply.model_version, reply.outputs[0].as_numpy().tolist()]
    try:
        await client.infer(
            base, InferRequest(model_name="nothing", infer_inputs=forms()["list"][1]), model_name="nothing"
        )
    except httpx.HTTPStatusError as error:
        found["unknown"] = [error.response.status_code, str(error)]
    v1 = InferenceRESTClient(RESTConfig(protocol="v1", timeout=20, retries=0))
    answer = await v1.infer(base, {"instances": [[1.0, 2.0], [-1.0, -3.0]]}, model_name="flag")
    found["v1"] = answer["predictions"]
    return found


async def main(address: str, rest_address: str) -> None:
    found: dict[str, Any] = {}
    async with InferenceGRPCClient(address, timeout=20, retries=2) as client:
        found["live"], found["ready"] = await client.is_server_live(), await client.is_server_ready()
        found["model"] = await client.is_model_ready("flag")
        for form, (model, inputs) in forms().items():
            reply = await client.infer(InferRequest(model_name=model, infer_inputs=inputs, request_id=form))
            first = reply.outputs[0].as_numpy().tolist()
            found[form] = [reply.id, reply.model_version, first]
        try:
            await client.infer(InferRequest(model_name="nothing", infer_inputs=forms()["array"][1]))
        except grpc.aio.AioRpcError as error:
            found["unknown"] = [error.code().name, error.details()]
    print(json.dumps(found, default=bytes.decode))
    print(json.dumps(await rest(rest_address), default=bytes.decode))


asyncio.run(main(*sys.argv[1:]))
