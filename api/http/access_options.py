"""What the settings say of access (keys, TLS, origins, limits), checked and in the form that the web server uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fastapi import FastAPI

from api.http.auth import HEALTH_PATHS, METRICS_PATHS, AccessControl, AccessPolicy, KeyRing
from api.http.cors import CorsPolicy, add_cors
from api.http.limits import MAX_DEPTH, ConnectionLimits
from config.api_keys import ApiKey, keys_of
from config.server_tls import ServerTls
from config.settings import Settings


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """Everything about access.

    Attributes:
        cors: None sends no header for browsers.
        tls: None serves plain HTTP.
        max_json_depth: levels of objects and lists in a body.
        max_queue_s: in which the first token must come; None is no limit.
    """

    policy: AccessPolicy = field(default_factory=AccessPolicy)
    cors: CorsPolicy | None = None
    tls: ServerTls | None = None
    connection: ConnectionLimits = field(default_factory=ConnectionLimits)
    max_json_depth: int = MAX_DEPTH
    max_queue_s: float | None = None

    @classmethod
    def of(cls, settings: Settings, keys: Sequence[ApiKey] = ()) -> AccessOptions:
        """Read the settings and the files that they name.

        Args:
            settings: of the user.
            keys: what the launcher has kept of keys; it does not hand on the keys themselves.

        Raises:
            ConfigError: a certificate, its key, or the file of keys cannot be used.
        """
        limits = settings.limits
        tls = ServerTls.load(settings.tls)
        return cls(
            policy=_policy(settings, keys, needs_certificate=tls is not None and tls.asks_for_certificates),
            cors=_cors(settings),
            tls=tls,
            connection=ConnectionLimits(
                max_header_bytes=limits.max_header_bytes,
                max_headers=limits.max_headers,
                max_connections=limits.max_connections,
                header_timeout_s=limits.header_timeout_s,
                keep_alive_s=limits.keep_alive_s,
                send_timeout_s=limits.send_timeout_s,
            ),
            max_json_depth=limits.max_json_depth,
            max_queue_s=limits.max_queue_s,
        )


def add_access(app: FastAPI, access: AccessOptions) -> None:
    """Put keys, certificates and origins around what the application has so far.

    Origins stand outside: a browser asks with ``OPTIONS`` and without a key whether it may send one.
    """
    if access.policy.asks_for_anything:
        app.add_middleware(AccessControl, policy=access.policy)
    add_cors(app, access.cors)


def _policy(settings: Settings, keys: Sequence[ApiKey], *, needs_certificate: bool) -> AccessPolicy:
    given = (*keys, *keys_of(settings.keys.api_keys, settings.keys.api_key))
    path = settings.keys.hashes_path
    return AccessPolicy(
        keys=KeyRing(given, path) if given or path is not None else None,
        needs_certificate=needs_certificate,
        open_paths=HEALTH_PATHS | METRICS_PATHS if settings.keys.metrics_public else HEALTH_PATHS,
        max_requests_per_key=settings.keys.max_requests_per_key,
    )


def _cors(settings: Settings) -> CorsPolicy | None:
    cors = settings.cors
    if not cors.allow_origins:
        return None
    return CorsPolicy(
        allow_origins=cors.allow_origins,
        allow_methods=cors.allow_methods,
        allow_headers=cors.allow_headers,
        expose_headers=cors.expose_headers,
        max_age_s=cors.max_age_s,
    )
