"""Settings of the way from the API to its engine: the server that carries it, or engines that run elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from config.settings_base import SettingsModel, read_lower, read_names, variable

_LARGEST_PORT = 65_535
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])\Z")


def _has_port(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not _HOST.match(host) or not port.isdecimal() or not 0 < int(port) <= _LARGEST_PORT:
        raise ValueError(f"{value!r} is no address: write host:port, an IPv6 host as [::1]")
    return value


def _endpoint(value: str) -> str:
    if value.startswith("unix:"):
        if len(value) == len("unix:"):
            raise ValueError("'unix:' lacks the socket's path")
        return value
    return _has_port(value)


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError("an address stands twice")
    return values


Address = Annotated[str, AfterValidator(_has_port)]
Endpoint = Annotated[str, AfterValidator(_endpoint)]
Seconds = Annotated[float, Field(gt=0, le=3600)]


class TransportSettings(SettingsModel):
    """The server that carries the engine, where the launcher starts one."""

    kind: Annotated[Literal["embedded", "triton"], BeforeValidator(read_lower)] = variable(
        "NIM_ENGINE_TRANSPORT", "embedded"
    )
    """``embedded`` is our own server, ``triton`` NVIDIA's Triton Inference Server."""
    triton_python: Path | None = variable("NIM_TRITON_PYTHON", None)
    """The Python interpreter in whose environment Triton runs the model. Unset: the launcher's own."""
    triton_grpc: Address | None = variable("NIM_TRITON_GRPC_ADDRESS", None)
    """``host:port`` at which Triton serves gRPC for other clients as well, which need no key. Unset: a private
    socket."""
    triton_http: Address | None = variable("NIM_TRITON_HTTP_ADDRESS", None)
    """``host:port`` at which Triton serves its own HTTP routes, which need no key. Unset: nowhere."""
    triton_metrics: Address | None = variable("NIM_TRITON_METRICS_ADDRESS", None)
    """``host:port`` at which Triton serves its metrics for Prometheus. Unset: nowhere."""


class RemoteSettings(SettingsModel):
    """Engines that somebody else starts, here or on other machines; with them only the API runs here."""

    endpoints: Annotated[
        tuple[Endpoint, ...], BeforeValidator(read_names), AfterValidator(_distinct)
    ] = variable("NIM_ENGINE_ENDPOINTS", ())  # fmt: skip
    """gRPC addresses of engines that all serve the same model: ``host:port``, separated by commas. Requests go to the
    one that has the fewest."""
    tls: bool = variable("NIM_ENGINE_TLS", default=False)
    """Speak TLS with them and trust the system's authorities; a file below turns it on, too."""
    tls_ca: Path | None = variable("NIM_ENGINE_TLS_CA", None)
    """PEM file with the authorities to trust instead of the system's."""
    tls_cert: Path | None = variable("NIM_ENGINE_TLS_CERT", None)
    """PEM file with the certificate that makes this API known to the engines; goes with ``NIM_ENGINE_TLS_KEY``."""
    tls_key: Path | None = variable("NIM_ENGINE_TLS_KEY", None)
    """PEM file with its private key."""
    tls_name: Annotated[str, Field(min_length=1)] | None = variable("NIM_ENGINE_TLS_SERVER_NAME", None)
    """The name that the engines' certificates must hold, where it is not that of their address."""
    keepalive_s: Seconds = variable("NIM_ENGINE_KEEPALIVE_SECONDS", 10.0)
    """After so long without a byte an engine is asked for a sign of life."""
    keepalive_timeout_s: Seconds = variable("NIM_ENGINE_KEEPALIVE_TIMEOUT_SECONDS", 5.0)
    """Its connection is given up when none comes within this time."""
    connect_timeout_s: Seconds = variable("NIM_ENGINE_CONNECT_TIMEOUT_SECONDS", 5.0)
    """So long a request may wait for a connection."""

    @property
    def uses_tls(self) -> bool:
        """Tell whether the connections are encrypted."""
        files = (self.tls_ca, self.tls_cert, self.tls_key, self.tls_name)
        return self.tls or any(file is not None for file in files)
