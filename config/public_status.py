"""What anybody may learn of the launcher's phase where the server asks for keys or certificates.

Figures stay, because probes and people wait for them. Sentences go: they may name machines and mirrors. The launcher's
front and the API's health route both tell the phase, so the rule stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_PUBLIC: Final = frozenset({"phase", "since", "bytes_done", "bytes_total", "bytes_per_second", "eta_seconds"})


def public_facts(status: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of a phase that is for everybody."""
    return {name: fact for name, fact in status.items() if name in _PUBLIC}
