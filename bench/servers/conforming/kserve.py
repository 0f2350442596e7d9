"""KServe's Python model server with the models of the conformance suite.

Source: kserve.github.io, "Custom Predictor" and "Python Serving Runtime API".
"""

import sys

from bench.servers.conforming.answers import answer, ports
from penstock_conformance.contract import MODELS
from penstock_conformance.contract import Model as Contract

found = ports()
# KServe reads its log's form from the command line, when it is imported.
sys.argv[1:] = ["--configure_logging=false"]

import kserve  # noqa: E402


class ConformingModel(kserve.Model):
    """A model of the contract; KServe's server knows no versions."""

    def __init__(self, contract: Contract) -> None:
        super().__init__(contract.name)
        self._contract = contract
        self.ready = True

    async def get_input_types(self) -> list[dict[str, object]]:
        """What it declares."""
        return _declared(self._contract.inputs)

    async def get_output_types(self) -> list[dict[str, object]]:
        """What it declares."""
        return _declared(self._contract.outputs)

    async def predict(
        self,
        payload: kserve.InferRequest,
        headers: dict[str, str] | None = None,  # noqa: ARG002 - KServe's signature
        response_headers: dict[str, str] | None = None,  # noqa: ARG002
    ) -> kserve.InferResponse:
        inputs = {each.name: each.as_numpy() for each in payload.inputs}
        outputs = []
        for name, array in answer(self._contract, "1", inputs).items():
            datatype, _ = self._contract.outputs[name]
            output = kserve.InferOutput(name=name, shape=list(array.shape), datatype=datatype)
            output.set_data_from_numpy(array, binary_data=payload.from_grpc)
            outputs.append(output)
        return kserve.InferResponse(response_id=payload.id or "", model_name=self.name, infer_outputs=outputs)


def _declared(tensors: object) -> list[dict[str, object]]:
    return [{"name": name, "datatype": each[0], "shape": list(each[1])} for name, each in dict(tensors).items()]  # type: ignore[call-overload]


def main() -> None:
    """Serves until it is ended."""
    server = kserve.ModelServer(http_port=found.http, grpc_port=found.grpc, grace_period=1)
    server.start([ConformingModel(each) for each in MODELS.values() if len(each.versions) == 1])


if __name__ == "__main__":
    main()
