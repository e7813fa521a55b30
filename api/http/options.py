"""What the web server needs to know of the user's settings; ``api.__main__`` fills it in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from api.http.access_options import AccessOptions
from api.http.metadata_facts import ModelFacts
from api.media.decoder import DecoderLimits
from api.media.fetch import FetchLimits
from api.media.fetch_policy import FetchPolicy
from api.telemetry.trace_options import TraceOptions


@dataclass(frozen=True, slots=True)
class ApiOptions:
    """Limits and switches of one API process."""

    host: str = "0.0.0.0"  # noqa: S104 - a server in a container must be reachable from outside it
    port: int = 8000
    max_images: int = 5
    max_image_bytes: int = 20 * 1024 * 1024
    image_tokens: int = 280
    image_cache_bytes: int = 64 * 1024 * 1024
    local_media_path: Path | None = None
    fetch_policy: FetchPolicy | None = field(default_factory=FetchPolicy)
    """Where pictures may be fetched from; None refuses URLs."""
    fetch_limits: FetchLimits = field(default_factory=FetchLimits)
    decoders: DecoderLimits = field(default_factory=DecoderLimits)
    lenient_requests: bool = False
    diagnostics: bool = False
    max_body_bytes: int = 64 * 1024 * 1024
    body_timeout_s: float = 120.0
    shutdown_grace_s: float = 30.0
    access: AccessOptions = field(default_factory=AccessOptions)
    model: ModelFacts = field(default_factory=ModelFacts)
    traces: TraceOptions | None = None
