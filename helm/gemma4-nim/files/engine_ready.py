# ruff: noqa: INP001 - a script that a kubelet runs beside an engine
"""Tells whether an engine has loaded its model, for the kubelet: python engine_ready.py ADDRESS.

Asks KServe's ModelReady, which our own server and Triton both know. Exit code 0 if it has; otherwise it says what
is there instead. The two messages are so small that they are written and read as bytes.
"""

from __future__ import annotations

import sys
from typing import Final

import grpc

METHOD: Final = "/inference.GRPCInferenceService/ModelReady"
MODEL: Final = b"gemma4"
READY: Final = b"\x08\x01"
"""``ModelReadyResponse`` with its one field, a boolean, set."""
TIMEOUT_S: Final = 10


def main(address: str) -> None:
    """Ask once."""
    request = b"\x0a" + bytes([len(MODEL)]) + MODEL
    with grpc.insecure_channel(address) as channel:
        try:
            answer = channel.unary_unary(METHOD)(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            sys.exit(f"{address} does not answer: {error}")
    if answer != READY:
        sys.exit("the model is not loaded yet")


if __name__ == "__main__":
    main(*sys.argv[1:])
