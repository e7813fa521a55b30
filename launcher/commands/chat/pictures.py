"""Pictures for a conversation: a file becomes a data URL, an http(s) address is left for the server to fetch."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from launcher.errors import ExitCode, LaunchError

MAX_BYTES: Final = 40 * 1024 * 1024
"""A picture of this size still fits in the largest request that a server takes by default, written as base64."""
_SIGNATURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"BM", "image/bmp"),
)


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture: ``name`` for people, ``url`` for the server."""

    name: str
    url: str

    def part(self) -> dict[str, object]:
        """Return it as a part of a message."""
        return {"type": "image_url", "image_url": {"url": self.url}}


def picture_from(source: str) -> Picture:
    """Take a path, or an http(s) or data URL.

    Raises:
        LaunchError: the file cannot be read, or is no picture.
    """
    if source.startswith(("http://", "https://")):
        return Picture(source, source)
    if source.startswith("data:"):
        return Picture("picture", source)
    path = Path(source.removeprefix("file://")).expanduser()
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise _refused(
                f"the picture {path} has {size / 2**20:.0f} MiB", f"at most {MAX_BYTES // 2**20} MiB are sent"
            )
        data = path.read_bytes()
    except OSError as error:
        raise _refused(
            f"the picture {path} cannot be read: {error.strerror or error}", "give a path or an http(s) URL"
        ) from error
    kind = _kind(data)
    if kind is None:
        raise _refused(f"{path} is not a PNG, JPEG, GIF, WebP or BMP picture", "convert it first")
    return Picture(path.name, f"data:{kind};base64,{base64.b64encode(data).decode()}")


def _kind(data: bytes) -> str | None:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for signature, kind in _SIGNATURES if data.startswith(signature)), None)


def _refused(message: str, remedy: str) -> LaunchError:
    return LaunchError(ExitCode.BAD_SETTINGS, message, remedy)
