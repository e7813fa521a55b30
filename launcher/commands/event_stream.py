"""Takes server-sent events of the OpenAI API apart, fed with bytes as they arrive. Pure."""

from __future__ import annotations

import json
from typing import Any, Final

DONE: Final = b"[DONE]"


class EventStreamDecoder:
    """Decodes one stream; ``is_done`` turns true with its ``[DONE]``."""

    def __init__(self) -> None:
        self._rest = b""
        self.is_done = False

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the events that ``data`` completes; comments and events that hold no JSON object are left out."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        events = []
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            payload = line.removeprefix(b"data:").strip()
            if payload == DONE:
                self.is_done = True
                continue
            try:
                event = json.loads(payload)
            except ValueError:
                continue
            if isinstance(event, dict):
                events.append(event)
        return events
