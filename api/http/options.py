"""What the web server needs to know of the user's settings; ``api.__main__`` fills it in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """Limits and switches of one API process."""

    host: str = "0.0.0.0"  # noqa: S104 - a server in a container must be reachable from outside it
    port: int = 8000
    max_images: int = 5
    max_image_bytes: int = 20 * 1024 * 1024
    image_tokens: int = 280
    lenient_requests: bool = False
    diagnostics: bool = False
    max_body_bytes: int = 64 * 1024 * 1024
    body_timeout_s: float = 120.0
    decoder_threads: int = 2
    shutdown_grace_s: float = 30.0
