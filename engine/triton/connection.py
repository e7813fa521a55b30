"""How the client connects: deadlines, keep-alive, TLS. One set of options for all engines of a client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc

from engine.triton.protocol import MAX_MESSAGE_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from config.runtime import EngineConnection

MILLISECONDS = 1000
MAX_RECONNECT_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files. Certificate and key make the client known."""

    authorities: Path | None = None
    """None trusts the public ones, by gRPC's own list."""
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    """The name that the server's certificate must hold, where that is not the address's own."""


@dataclass(frozen=True, slots=True)
class ConnectionOptions:
    """Deadlines and liveness, in seconds. Generation has no deadline: its consumer decides.

    A connection on which nothing arrives for ``keepalive_s`` is asked for a sign of life, and given up when none comes
    within ``keepalive_timeout_s``. A server may object to frequent pings: Triton's default allows one in five minutes
    where nothing is sent, so it has to be started with other limits, or this be raised.
    """

    connect_timeout_s: float = 5.0
    call_timeout_s: float = 5.0
    """Deadline of the short calls (ready, limits, statistics)."""
    keepalive_s: float = 10.0
    keepalive_timeout_s: float = 5.0
    tls: TlsFiles | None = None
    """None sends everything as it is. A unix socket never needs more."""

    @classmethod
    def of(cls, wanted: EngineConnection) -> ConnectionOptions:
        """Return what the launcher has decided.

        Raises:
            ValueError: only one of certificate and key is given.
        """
        tls = None if wanted.tls is None else TlsFiles(**dict(wanted.tls))
        return cls(
            connect_timeout_s=wanted.connect_timeout_s,
            keepalive_s=wanted.keepalive_s,
            keepalive_timeout_s=wanted.keepalive_timeout_s,
            tls=tls,
        )

    def __post_init__(self) -> None:
        """Refuse what could not work.

        Raises:
            ValueError: a time is not positive, or only one of certificate and key is given.
        """
        for name in ("connect_timeout_s", "call_timeout_s", "keepalive_s", "keepalive_timeout_s"):
            if getattr(self, name) <= 0:
                message = f"{name} must be more than 0"
                raise ValueError(message)
        if self.tls is not None and (self.tls.certificate is None) != (self.tls.key is None):
            message = "a client certificate and its key are given together or not at all"
            raise ValueError(message)


def open_channel(address: str, options: ConnectionOptions) -> grpc.aio.Channel:
    """Return a channel that connects when it is first used.

    Raises:
        OSError: a TLS file cannot be read.
    """
    arguments: list[tuple[str, int | str]] = [
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", round(options.keepalive_s * MILLISECONDS)),
        ("grpc.keepalive_timeout_ms", round(options.keepalive_timeout_s * MILLISECONDS)),
        ("grpc.http2.max_pings_without_data", 0),
        # The launcher restarts a crashed engine within a second; gRPC's own back-off would wait for up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", round(MAX_RECONNECT_PAUSE_S * MILLISECONDS)),
        ("grpc.enable_http_proxy", 0),
    ]
    tls = options.tls
    if tls is None or address.startswith("unix:"):
        return grpc.aio.insecure_channel(address, options=arguments)
    if tls.server_name is not None:
        arguments.append(("grpc.ssl_target_name_override", tls.server_name))
    return grpc.aio.secure_channel(address, _credentials(tls), options=arguments)


def _credentials(tls: TlsFiles) -> grpc.ChannelCredentials:
    authorities, key, certificate = (
        None if path is None else path.read_bytes() for path in (tls.authorities, tls.key, tls.certificate)
    )
    return grpc.ssl_channel_credentials(authorities, key, certificate)
