"""Checks of the way to the sources, done only where something has to be downloaded: names, proxy, connection."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from config.settings import Settings
from launcher.commands.doctor.findings import Findings, failure, fine
from launcher.download.access import Access
from launcher.download.access_settings import access_from
from launcher.errors import ExitCode, LaunchError, NetworkError

TIMEOUT_S: Final = 3.0
DEFAULT_PORTS: Final = {"http": 80, "https": 443}


def check_network(settings: Settings, uris: tuple[str, ...]) -> Findings:
    """Look at the way to the hosts that files come from; ``uris`` are those that have to be fetched."""
    access = access_from(settings)
    yield from _trust(settings)
    for url in dict.fromkeys(address for uri in uris if (address := _address(uri, access))):
        yield from _connection(url, access)


def _address(uri: str, access: Access) -> str:
    """Return the address that is asked for a file; empty for a folder of this machine."""
    mirror = access.repository_override or ""
    if mirror and uri.startswith(("hf://", "ngc://")):
        uri = mirror.replace("jfrog://", "https://", 1)
    if uri.startswith("hf://"):
        return access.hf_endpoint
    if uri.startswith("ngc://"):
        return access.ngc_endpoint
    if uri.startswith("s3://"):
        return access.keys.s3.endpoint or f"https://s3.{access.keys.s3.region}.amazonaws.com"
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.scheme in DEFAULT_PORTS else ""


def _trust(settings: Settings) -> Findings:
    path: Path | None = settings.network.ca_file or settings.network.ca_bundle
    if path is not None and not path.exists():
        message = f"the file of trusted certificates {path} does not exist"
        remedy = "mount it, or correct SSL_CERT_FILE and REQUESTS_CA_BUNDLE"
        yield failure("certificates", LaunchError(ExitCode.BAD_SETTINGS, message, remedy))


def _connection(url: str, access: Access) -> Findings:
    proxy = access.proxies.proxy_for(url)
    parts = urlsplit(proxy or url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS.get(parts.scheme, 443)
    asked = urlsplit(url).hostname or url
    by = f" through the proxy {host}:{port}" if proxy else ""
    try:
        with socket.create_connection((host, port), TIMEOUT_S):
            yield fine("network", f"{asked} can be reached{by}")
    except socket.gaierror:
        remedy = (
            "check the container's DNS (docker run --dns), or set HTTPS_PROXY, or NIM_REPOSITORY_OVERRIDE to a mirror"
        )
        yield failure("network", NetworkError(f"the name {host} cannot be resolved", remedy))
    except OSError as error:
        reason = error.strerror or "no answer in time"
        remedy = "check firewall and HTTPS_PROXY, or set NIM_REPOSITORY_OVERRIDE to a mirror"
        yield failure(
            "network",
            NetworkError(f"{host}:{port} cannot be reached{' (the proxy)' if proxy else ''}: {reason}", remedy),
        )
