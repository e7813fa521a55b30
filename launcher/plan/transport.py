"""What carries an engine that the launcher starts: its name, and why it is that one. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from config.settings import Settings


@dataclass(frozen=True, slots=True)
class Transport:
    """The server around the engine.

    Attributes:
        kind: ``embedded`` or ``triton``.
        why: which setting says so.
    """

    kind: str = "embedded"
    why: str = "the default; NIM_ENGINE_TRANSPORT=triton takes Triton"

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.kind}  ({self.why})"


EMBEDDED = Transport()


def read_transport(settings: Settings) -> Transport:
    """Return what the settings ask for."""
    kind = settings.transport.kind
    return EMBEDDED if kind == EMBEDDED.kind else Transport(kind, f"NIM_ENGINE_TRANSPORT={kind}")
