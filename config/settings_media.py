"""Settings of pictures: how many and how large, and where requests may take them from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_core import Url

from config.settings_base import SettingsModel, read_names, read_number, variable

ImageTokens = Literal[70, 140, 280, 560, 1120]

_HOST = re.compile(r"(?:\*|(?:\*\.)?[^\s:/@?#\\\[\]*]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?\Z")


def _ports(value: object) -> object:
    # What is no number is left for the field to refuse.
    if not isinstance(value, str):
        return value
    texts = (text.strip() for text in value.split(","))
    return tuple(int(text) if text.isdigit() else text for text in texts if text) or value


def _host(value: str) -> str:
    if not _HOST.match(value) or not _is_host(value):
        raise ValueError("list hosts (example.com, *.example.com, host:port, [::1]:8080 or *), not URLs")
    return value


def _is_host(value: str) -> bool:
    # The parser that will read the URLs of requests must be able to read the list.
    try:
        return Url(f"http://{value.removeprefix('*').removeprefix('.') or 'any'}/").port != 0
    except ValidationError:
        return value.startswith("*:")


def _folder(value: Path) -> Path:
    if not value.is_absolute() or value == Path(value.anchor):
        raise ValueError("must be an absolute path of a folder that holds nothing but images, not /")
    return value


Host = Annotated[str, AfterValidator(_host)]


class MediaSettings(SettingsModel):
    """Pictures in requests."""

    max_images_per_prompt: int = variable("NIM_MAX_IMAGES_PER_PROMPT", 5, ge=0, le=64)
    """Pictures that one request may hold; 0 takes text only."""
    image_tokens: Annotated[ImageTokens, BeforeValidator(read_number)] = variable("NIM_IMAGE_TOKENS", 280)
    """Token budget of one picture unless its ``detail`` says otherwise: 70, 140, 280, 560 or 1120."""
    max_image_bytes: int = variable("NIM_MAX_IMAGE_BYTES", 20 * 1024 * 1024, ge=1024)
    """Largest picture file, in bytes: after base64, and after a server's compression."""
    allowed_local_path: Annotated[Path, AfterValidator(_folder)] | None = variable("NIM_ALLOWED_LOCAL_MEDIA_PATH", None)
    """Folder whose files requests may name as pictures, by path or ``file:`` URL. Unset: none."""
    image_cache_bytes: int = variable("NIM_IMAGE_CACHE_BYTES", 64 * 1024 * 1024, ge=0)
    """Memory for decoded pictures that clients send again with every turn; 0 turns it off."""
    decoders: Annotated[int, Field(ge=1, le=64)] | None = variable("NIM_IMAGE_DECODERS", None)
    """Processes that decode pictures, and so pictures that are decoded at once. Unset: one for each core, at most 4."""
    decoder_memory_bytes: int = variable("NIM_IMAGE_DECODER_MEMORY_BYTES", 2 * 1024**3, ge=512 * 1024**2)
    """Address space of each of these processes; a picture that needs more is a 400."""
    decoder_timeout_s: int = variable("NIM_IMAGE_DECODER_TIMEOUT_SECONDS", 20, ge=1, le=600)
    """Seconds that decoding one picture may take, in all and of CPU time; one that needs more is a 400."""


class FetchSettings(SettingsModel):
    """Pictures that requests name by http(s) URL."""

    allow_url_input: bool = variable("NIM_ALLOW_URL_INPUT", default=True)
    """Fetch pictures by URL; with 0 a URL is a 400."""
    allowed_domains: Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], BeforeValidator(read_names)] = (
        variable("NIM_ALLOWED_MEDIA_DOMAINS", ())
    )
    """Hosts to fetch from, and only these, private addresses included: ``host``, ``host:port``, ``*.domain``, or ``*``
    for every public host besides. Unset: every public host."""
    allowed_ports: Annotated[tuple[Annotated[int, Field(ge=1, le=65535)], ...], BeforeValidator(_ports)] = variable(
        "NIM_ALLOWED_MEDIA_PORTS", (80, 443)
    )
    """Ports to fetch from. A listed ``host:port`` needs no entry here."""
    timeout_s: float = variable("NIM_MEDIA_FETCH_TIMEOUT_SECONDS", 10.0, gt=0, le=600)
    """Seconds for one picture from the look-up of the name to the last byte, redirects included."""
    connect_timeout_s: float = variable("NIM_MEDIA_CONNECT_TIMEOUT_SECONDS", 3.0, gt=0, le=600)
    """Seconds of those until the connection must stand, TLS included."""
    max_parallel: int = variable("NIM_MAX_MEDIA_FETCHES", 16, ge=1, le=1024)
    """Pictures that are fetched at the same time for all requests; one request fetches four."""
