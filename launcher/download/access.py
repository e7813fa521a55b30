"""How the outside is reached: keys, endpoints, proxies, trusted certificates, patience. Plain values, no I/O.

Keys are ``SecretStr``: they do not show in logs or reprs, and ``launcher.download.credentials`` sends each only to the
host it belongs to.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

HF_ENDPOINT: Final = "https://huggingface.co"
NGC_ENDPOINT: Final = "https://api.ngc.nvidia.com"
NGC_LOGIN: Final = "https://authn.nvidia.com"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MIB: Final = 1024**2


@dataclass(frozen=True, slots=True)
class S3Access:
    """Keys and place of an S3 store; without keys requests go out unsigned, which public buckets allow.

    Attributes:
        endpoint: of a store that is not AWS, e.g. ``https://minio.example:9000``; None is AWS in ``region``.
    """

    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    region: str = "us-east-1"
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Keys:
    """Secrets, by the variable that usually carries them.

    Attributes:
        hf_token: ``HF_TOKEN``, for the Hugging Face endpoint.
        ngc_api_key: ``NGC_CLI_API_KEY`` or ``NGC_API_KEY``, for NGC's endpoints.
        mirror_credential: ``NIM_HTTPS_CREDENTIAL``, the ``Authorization`` value for an https mirror.
    """

    hf_token: SecretStr | None = None
    ngc_api_key: SecretStr | None = None
    mirror_credential: SecretStr | None = None
    s3: S3Access = S3Access()


@dataclass(frozen=True, slots=True)
class Proxies:
    """``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``."""

    https: str | None = None
    http: str | None = None
    no_proxy: str = ""

    def proxy_for(self, url: str) -> str | None:
        """Return the proxy for ``url``, or None to connect directly."""
        parts = urlsplit(url)
        proxy = self.https if parts.scheme == "https" else self.http
        host, port = (parts.hostname or "").lower(), parts.port or _DEFAULT_PORTS.get(parts.scheme)
        if not proxy or any(_is_exempt(host, port, entry) for entry in self.no_proxy.lower().split(",")):
            return None
        return proxy if "://" in proxy else f"http://{proxy}"


@dataclass(frozen=True, slots=True)
class Trust:
    """Which certificates are trusted; by default the built-in list of public authorities and the system's store.

    Attributes:
        ca_bundle: ``SSL_CERT_FILE`` or ``REQUESTS_CA_BUNDLE``: trust this file or folder and nothing else.
        native: ``NIM_SDK_USE_NATIVE_TLS``: trust the system's store only.
    """

    ca_bundle: Path | None = None
    native: bool = False


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait and how often to try.

    Attributes:
        connect_s: until a connection stands.
        stall_s: without a byte, or with less than a kilobyte a second, until a connection is given up.
        attempts: failures in a row, with no byte between them, after which the download is given up.
        backoff_s: the first pause; it doubles with each failure up to ``longest_pause_s``, with jitter.
    """

    connect_s: float = 10.0
    stall_s: float = 30.0
    attempts: int = 8
    backoff_s: float = 0.5
    longest_pause_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Tuning:
    """Sizes in bytes.

    Attributes:
        connections: requests at the same time, over all files.
        piece: what is journalled and can be fetched again on its own.
        segment: most that one request asks for.
    """

    connections: int = 8
    piece: int = _MIB
    segment: int = 64 * _MIB


@dataclass(frozen=True, slots=True)
class Access:
    """Everything that a download needs to know about the outside.

    Attributes:
        offline: open no connection at all; what the cache lacks is an error.
        repository_override: ``NIM_REPOSITORY_OVERRIDE``: a mirror that has all files, ``s3://bucket/prefix``,
            ``https://host/prefix``, ``jfrog://host/prefix``, ``ngc://host`` or ``file:///folder``.
    """

    offline: bool = False
    repository_override: str | None = None
    keys: Keys = Keys()
    hf_endpoint: str = HF_ENDPOINT
    ngc_endpoint: str = NGC_ENDPOINT
    ngc_login: str = NGC_LOGIN
    proxies: Proxies = Proxies()
    trust: Trust = Trust()
    patience: Patience = field(default_factory=Patience)
    tuning: Tuning = field(default_factory=Tuning)


def _is_exempt(host: str, port: int | None, entry: str) -> bool:
    """Tell whether ``entry`` of NO_PROXY covers the host: ``*``, a name and all below it, an address or a network."""
    entry = entry.strip()
    if entry in ("", "*"):
        return entry == "*"
    name, colon, digits = entry.rpartition(":")
    if colon and digits.isdigit() and ":" not in name:
        if int(digits) != port:
            return False
        entry = name
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        entry = entry.removeprefix("*").removeprefix(".")
        return host == entry or host.endswith(f".{entry}")
