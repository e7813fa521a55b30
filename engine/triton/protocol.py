"""KServe v2 gRPC as tritonclient ships it: messages, client stub, servicer base. The only import of tritonclient."""

from __future__ import annotations

from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.grpc.service_pb2_grpc import (
    GRPCInferenceServiceServicer,
    GRPCInferenceServiceStub,
    add_GRPCInferenceServiceServicer_to_server,
)

MAX_MESSAGE_BYTES = 256 * 2**20
"""A request may carry dozens of raw pictures of up to 7.7 MB (1,120 soft tokens); gRPC's own limit is 4 MB."""

MODEL_NAME = "gemma4"
"""The model's name in the inference protocol; users address the server by its served names instead."""

__all__ = [
    "MAX_MESSAGE_BYTES",
    "MODEL_NAME",
    "GRPCInferenceServiceServicer",
    "GRPCInferenceServiceStub",
    "add_GRPCInferenceServiceServicer_to_server",
    "model_config_pb2",
    "service_pb2",
]
