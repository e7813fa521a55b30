"""Settings of who may use the server and how much of it: keys, TLS, browsers' origins, limits of connections.

What the key files hold is ``config.api_keys``'s business, what the certificates hold ``config.server_tls``'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from config.api_keys import split_keys
from config.settings_base import SettingsModel, read_names, variable

TlsMode = Literal["disabled", "tls", "mtls"]

_OFF = ("0", "false", "no", "off", "none", "")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+\Z")
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z")


def _mode(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    return "disabled" if text in _OFF else text


def _keys(value: SecretStr) -> SecretStr:
    split_keys(value.get_secret_value())
    return value


def _one_key(value: SecretStr) -> SecretStr:
    if len(split_keys(value.get_secret_value())) != 1:
        raise ValueError("this is one key; NIM_API_KEYS takes several")
    return value


def _origins(value: tuple[str, ...]) -> tuple[str, ...]:
    for origin in value:
        if origin != "*" and not _ORIGIN.match(origin):
            raise ValueError("an origin is written like https://chat.example.org, without a path; * means all")
    return value


def _tokens(value: tuple[str, ...]) -> tuple[str, ...]:
    for name in value:
        if not _TOKEN.match(name):
            raise ValueError("write names of headers or methods with commas between them")
    return value


Origins = Annotated[tuple[str, ...], BeforeValidator(read_names), AfterValidator(_origins)]
Tokens = Annotated[tuple[str, ...], BeforeValidator(read_names), AfterValidator(_tokens)]


class KeySettings(SettingsModel):
    """Who may send requests. Without any key everybody may."""

    api_keys: Annotated[SecretStr, AfterValidator(_keys)] | None = variable("NIM_API_KEYS", None)
    """Keys that open the server, separated by commas or line ends. The log calls them ``key1``, ``key2`` and so on."""
    api_key: Annotated[SecretStr, AfterValidator(_one_key)] | None = variable("NIM_API_KEY", None)
    """One more key, called ``key0``; ``gemma4-nim chat`` and ``bench`` send it."""
    hashes_path: Path | None = variable("NIM_API_KEY_HASHES_PATH", None)
    """File with one line for each key: its SHA-256 and a name, as ``gemma4-nim hash-key`` writes it. It is read again
    when it changes."""
    metrics_public: bool = variable("NIM_METRICS_PUBLIC", default=False)
    """Serve ``/metrics`` and ``/v1/metrics`` without a key."""
    max_requests_per_key: Annotated[int, Field(ge=1)] | None = variable("NIM_MAX_REQUESTS_PER_KEY", None)
    """Requests that one key may have running or waiting at once, in each API process; one more gets status 429."""


class TlsSettings(SettingsModel):
    """Encrypted connections. The files are read again when they change, and no connection is lost."""

    mode: Annotated[TlsMode, BeforeValidator(_mode)] = variable("NIM_SSL_MODE", "disabled")
    """``tls`` serves https only. ``mtls`` wants a certificate of each client, too; without one only the health routes
    answer."""
    certs_path: Path | None = variable("NIM_SSL_CERTS_PATH", None)
    """PEM file of the server's certificate, followed by those in between up to the authority."""
    key_path: Path | None = variable("NIM_SSL_KEY_PATH", None)
    """PEM file of the certificate's private key, not encrypted."""
    ca_certs_path: Path | None = variable("NIM_SSL_CA_CERTS_PATH", None)
    """PEM file of the authorities whose client certificates are accepted with ``mtls``."""

    def unused(self) -> Iterator[str]:
        """Yield a line for each file that is named though the mode has no use for it: it would be missed badly."""
        paths = {"NIM_SSL_CERTS_PATH": self.certs_path, "NIM_SSL_KEY_PATH": self.key_path}
        if self.mode == "disabled":
            for name in (name for name, path in paths.items() if path is not None):
                yield f"{name} has no effect: connections are not encrypted unless NIM_SSL_MODE is tls or mtls"
        if self.mode != "mtls" and self.ca_certs_path is not None:
            yield "NIM_SSL_CA_CERTS_PATH has no effect: clients show no certificate unless NIM_SSL_MODE is mtls"


class CorsSettings(SettingsModel):
    """Which web pages may use the server from a browser. Off unless origins are named."""

    allow_origins: Origins = variable("NIM_CORS_ALLOW_ORIGINS", ())
    """Origins of such pages, like ``https://chat.example.org``; ``*`` means every page."""
    allow_methods: Tokens = variable("NIM_CORS_ALLOW_METHODS", ("GET", "POST", "OPTIONS"))
    """Methods that they may use."""
    allow_headers: Tokens = variable("NIM_CORS_ALLOW_HEADERS", ("*",))
    """Headers that they may send; ``*`` means all, ``Authorization`` included."""
    expose_headers: Tokens = variable(
        "NIM_CORS_EXPOSE_HEADERS", ("X-Request-Id", "Retry-After", "Retry-After-Ms", "X-Nim-Ignored-Fields")
    )
    """Headers of answers that they may read."""
    max_age_s: int = variable("NIM_CORS_MAX_AGE", 600, ge=0, le=86_400)
    """Seconds for which a browser need not ask again."""


class LimitSettings(SettingsModel):
    """What one client may take of the server; times are in seconds."""

    max_header_bytes: int = variable("NIM_MAX_HEADER_BYTES", 32_768, ge=1024, le=1_048_576)
    """Request line and headers together; more gets status 431, a request line over 8 KiB status 414."""
    max_headers: int = variable("NIM_MAX_HEADERS", 100, ge=8, le=10_000)
    """Headers of one request; more get status 431."""
    max_json_depth: int = variable("NIM_MAX_JSON_DEPTH", 128, ge=8, le=512)
    """How deep objects and lists of a body may stand in each other; deeper gets status 400."""
    max_connections: int = variable("NIM_MAX_CONNECTIONS", 4096, ge=1, le=1_000_000)
    """Open connections of each API process; one more gets status 503."""
    header_timeout_s: float = variable("NIM_HEADER_TIMEOUT_SECONDS", 10.0, gt=0, le=3600)
    """In this time the head of a request, and before it the TLS handshake, must have arrived; else status 408."""
    body_timeout_s: float = variable("NIM_BODY_TIMEOUT_SECONDS", 120.0, gt=0, le=86_400)
    """The same for the body."""
    keep_alive_s: float = variable("NIM_KEEP_ALIVE_SECONDS", 75.0, gt=0, le=86_400)
    """For so long a connection stays open without a request. A load balancer's own time should be shorter."""
    send_timeout_s: float = variable("NIM_SEND_TIMEOUT_SECONDS", 120.0, gt=0, le=86_400)
    """A client that does not read its answer for so long is cut off."""
    max_queue_s: Annotated[float, Field(gt=0, le=86_400)] | None = variable("NIM_MAX_QUEUE_SECONDS", None)
    """Time in which the first token must come; a request that waits longer gets status 429. Unset: no limit."""
