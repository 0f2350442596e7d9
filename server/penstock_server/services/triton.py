"""Triton's extensions of the Open Inference Protocol, so that its clients and tools find what they know."""

from penstock import inference_pb2 as pb
from penstock.names import INFERENCE_SERVICE, STATISTICS_METHOD
from penstock_server.call import Call
from penstock_server.parse import OPEN_INFERENCE, parse_small
from penstock_server.prediction.predictor import Predictor
from penstock_server.services.forwarded import Forward, forwarded
from penstock_server.services.model_config import config_of
from penstock_server.transport.interface import Methods

EXTENSIONS = ("classification", "model_configuration", "statistics")
"""What server metadata calls them."""


def triton_methods(predictor: Predictor, forward: Forward, *, workers: int) -> Methods:
    """The extensions' methods of `inference.GRPCInferenceService`.

    Args:
        predictor: knows what is served.
        forward: asks the supervisor, which knows what all workers counted.
        workers: how many there are.
    """

    def model_config(message: bytes, call: Call) -> None:
        request = parse_small(pb.ModelConfigRequest, message, OPEN_INFERENCE)
        model = predictor.routing_table.model(request.name)
        executor = model.resolve(request.version or "@champion", "")
        call.finish(pb.ModelConfigResponse(config=config_of(model, executor, workers)).SerializeToString())

    asked = forwarded(
        INFERENCE_SERVICE, {STATISTICS_METHOD: pb.ModelStatisticsRequest}, forward, protocol=OPEN_INFERENCE
    )
    return Methods({f"/{INFERENCE_SERVICE}/ModelConfig": model_config, **asked}, {})
