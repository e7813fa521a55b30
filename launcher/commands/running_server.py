"""Finds the server that a command talks to, waits until it is ready, and picks the model."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from config.api_keys import split_keys
from config.environment import load_settings
from config.server_tls import own_client_context
from config.settings import Settings
from launcher.commands.server_client import Server
from launcher.errors import ExitCode, LaunchError
from launcher.supervision.readiness import HealthProbe


def find_server(url: str | None, key_file: Path | None, client_cert: Path | None = None) -> Server:
    """Return the server at ``url``, or this machine's at the port that the settings name.

    The key is that of the file, else ``NIM_API_KEY``, else for this machine's own server the first of its keys.

    Raises:
        LaunchError: the address, the file of the key or that of the certificate cannot be used.
        ConfigError: the settings cannot be read.
    """
    settings = load_settings().settings
    key = _key(settings, is_here=url is None) if key_file is None else _key_in(key_file)
    is_encrypted = settings.tls.mode != "disabled"
    server = Server.at(url or HealthProbe(settings.server.host, settings.server.port, is_encrypted).url, key)
    if server.scheme == "http":
        return server
    # This machine's server is known by its very certificate, which names it as others see it.
    context = own_client_context(settings.tls) if url is None else ssl.create_default_context()
    if client_cert is not None:
        try:
            context.load_cert_chain(client_cert.expanduser())
        except OSError as error:
            message = f"--client-cert {client_cert} cannot be used"
            remedy = "name a PEM file that holds a certificate and its key"
            raise LaunchError(ExitCode.BAD_SETTINGS, message, remedy) from error
    return replace(server, tls=context)


def _key_in(file: Path) -> str:
    try:
        return file.expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"--key-file {file} cannot be read"
        raise LaunchError(ExitCode.BAD_SETTINGS, message, "name a text file that holds the key") from error


def _key(settings: Settings, *, is_here: bool) -> str | None:
    """Return the key that the settings have; those of the server itself go to no other machine."""
    keys = settings.keys
    if keys.api_key is not None:
        return keys.api_key.get_secret_value().strip()
    if keys.api_keys is not None and is_here:
        return split_keys(keys.api_keys.get_secret_value())[0]
    return None


def wait_for_model(server: Server, wanted: str | None, timeout_s: float, show: Callable[[str], None]) -> str:
    """Return the name of the model to ask for, once the server is ready.

    Args:
        server: where to ask.
        wanted: a name that the user gave; it is the server's business whether it knows it.
        timeout_s: how long a server that loads its model is waited for.
        show: gets a line about what is waited for, again and again.

    Raises:
        ServerError: nobody answers, or the server is not ready in time.
    """
    began = time.monotonic()

    def on_wait(record: dict[str, Any]) -> None:
        show(f"{server.url}: {_phase(record)}, {time.monotonic() - began:.0f} s")

    server.wait_ready(timeout_s, on_wait)
    return wanted or str(server.models()[0]["id"])


def _phase(record: dict[str, Any]) -> str:
    """Say what a server that is not ready does, with its progress where it tells."""
    phase = str(record.get("phase") or "loading")
    done, total = record.get("bytes_done"), record.get("bytes_total")
    if isinstance(done, int) and isinstance(total, int) and total > 0:
        return f"{phase} {100 * done / total:.0f} %"
    return phase
