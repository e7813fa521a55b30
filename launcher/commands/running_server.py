"""Finds the server that a command talks to, waits until it is ready, and picks the model."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from config.environment import load_settings
from launcher.commands.server_client import Server
from launcher.errors import ExitCode, LaunchError


def find_server(url: str | None, key_file: Path | None) -> Server:
    """Return the server at ``url``, or this machine's at the port that the settings name.

    Raises:
        LaunchError: the address or the file of the key cannot be used.
        ConfigError: the settings cannot be read.
    """
    key = None
    if key_file is not None:
        try:
            key = key_file.expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            message = f"--key-file {key_file} cannot be read"
            raise LaunchError(ExitCode.BAD_SETTINGS, message, "name a text file that holds the key") from error
    return Server.at(url or f"http://127.0.0.1:{load_settings().settings.server.port}", key)


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
