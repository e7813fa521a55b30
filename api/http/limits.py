"""What one client may take of this process: the figures, and the checks of a body's depth and number of values.

``api.http.connection`` applies what concerns connections, ``api.http.body`` what concerns bodies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from api.http.refusals import CrowdedJsonError, DeepJsonError

MAX_DEPTH: Final = 128
MAX_VALUES: Final = 500_000
"""Values in one body. A million words are one value; that many values take the parser half a second and 50 MB."""
_SEPARATORS: Final = (b",", b"[", b"{")
"""One comes before each value but a few; those in texts are counted, too."""
_WINDOW: Final = 1 << 20
_CONTAINERS: Final = (dict, list)


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits of one connection and of all together; ``config.settings_access.LimitSettings`` explains each."""

    max_header_bytes: int = 32_768
    max_headers: int = 100
    max_connections: int = 4096
    header_timeout_s: float = 10.0
    keep_alive_s: float = 75.0
    send_timeout_s: float = 120.0


def check_crowd(data: bytes | memoryview, limit: int = MAX_VALUES) -> None:
    """Look at JSON text before it is parsed: it may be small and have millions of values.

    Raises:
        CrowdedJsonError: it has more than ``limit`` values, or commas and brackets.
    """
    if len(data) <= limit:
        return
    found = 0
    for start in range(0, len(data), _WINDOW):
        window = bytes(data[start : start + _WINDOW])
        found += sum(window.count(mark) for mark in _SEPARATORS)
        if found > limit:
            raise CrowdedJsonError(limit)


def check_depth(value: Any, limit: int) -> None:
    """Look at a JSON value level by level: what comes after walks through it by recursion.

    Raises:
        DeepJsonError: it has more levels than ``limit``.
    """
    level = [value] if isinstance(value, _CONTAINERS) else []
    for _ in range(limit):
        if not level:
            return
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, _CONTAINERS)
        ]
    if level:
        raise DeepJsonError(limit)
