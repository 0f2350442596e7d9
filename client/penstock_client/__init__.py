"""Penstock's client: rows in, predictions out, for any server of the Open Inference Protocol v2 over gRPC.

It needs only grpcio, protobuf and numpy. It accepts pandas and polars frames without importing either.
"""

from penstock_client.aio import AsyncClient
from penstock_client.balance import Balancing
from penstock_client.channel import Tls
from penstock_client.client import Client
from penstock_client.errors import (
    AccessDeniedError,
    DeadlineExceededError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
    PenstockClientError,
    ServerError,
    ServerUnavailableError,
    UnsupportedError,
)
from penstock_client.metadata import ModelMetadata, ModelState, TensorSpec
from penstock_client.prediction import Attributions, Prediction, Timing
from penstock_client.retry import Backoff, RetryBudget

__all__ = [
    "AccessDeniedError",
    "AsyncClient",
    "Attributions",
    "Backoff",
    "Balancing",
    "Client",
    "DeadlineExceededError",
    "InvalidRequestError",
    "ModelMetadata",
    "ModelNotFoundError",
    "ModelState",
    "OverloadedError",
    "PenstockClientError",
    "Prediction",
    "RetryBudget",
    "ServerError",
    "ServerUnavailableError",
    "TensorSpec",
    "Timing",
    "Tls",
    "UnsupportedError",
]
