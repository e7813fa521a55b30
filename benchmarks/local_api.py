"""``python -m benchmarks.local_api``: the product's API process with the scripted engine inside it, without the wire.

What it costs beside the real process is the way between API and engine; everything else is the same code.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import api.http.app
from api.__main__ import main as run_api
from benchmarks.scripted_engine import SteppedCore
from engine.core import EngineLimits, EngineRequest, Receiver, Running


class LocalEngine:
    """Stands where the API's engine client stands, over a core in the same event loop."""

    def __init__(self, core: SteppedCore) -> None:
        self._core = core

    async def start(self, request: EngineRequest, receiver: Receiver) -> Running:
        """Start a sequence."""
        return await self._core.start(request, receiver)

    async def adapters(self) -> tuple[str, ...]:
        """Return the core's adapters."""
        return self._core.limits().adapters

    async def limits(self) -> EngineLimits:
        """Return the core's limits."""
        return self._core.limits()

    async def ready(self) -> bool:
        """Tell that the core works."""
        return await self._core.health()

    async def close(self) -> None:
        """Do nothing."""


def main() -> None:
    """Serve as ``python -m api`` does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", required=True, help="JSON file as the launcher writes it")
    parser.add_argument("--ids", type=Path, required=True, help="JSON file with the ids of the answer")
    parser.add_argument("--step-ms", type=float, required=True)
    options = parser.parse_args()
    core = SteppedCore(tuple(json.loads(options.ids.read_text())), options.step_ms / 1000)

    def connect(_endpoints: Sequence[str], _options: object) -> LocalEngine:
        return LocalEngine(core)

    # The application makes its own client; here it gets another.
    api.http.app.EngineClient = connect  # type: ignore[assignment,attr-defined]
    sys.exit(run_api(["--runtime", options.runtime]))


if __name__ == "__main__":
    main()
