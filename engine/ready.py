"""``python -m engine.ready --runtime FILE``: has the engine on this machine loaded its model? For probes.

Takes the file that the engine was started with, so it knows where the engine listens, and gets in by TLS with the
engine's own certificate. The status is 0 when the model can generate; otherwise 1, and one line says so.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from config.runtime import EngineRuntime
from engine.errors import EngineError
from engine.listener_tls import own_address, own_options
from engine.triton.client import EngineClient

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_NOT_READY = 1
EXIT_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Ask once and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m engine.ready", description="Tell whether an engine is ready.")
    parser.add_argument("--runtime", type=Path, required=True, help="JSON file that the engine was started with")
    options = parser.parse_args(arguments)
    try:
        runtime = EngineRuntime.model_validate_json(options.runtime.read_bytes())
        is_ready = asyncio.run(_ask(runtime))
    except (OSError, ValidationError) as error:
        sys.stderr.write(f"engine.ready: {options.runtime} cannot be used: {error}\n")
        return EXIT_USAGE
    except EngineError as error:
        sys.stderr.write(f"engine.ready: {error.message}\n")
        return EXIT_NOT_READY
    if not is_ready:
        sys.stderr.write(f"engine.ready: nothing at {own_address(runtime.endpoint)} has loaded its model yet\n")
        return EXIT_NOT_READY
    return 0


async def _ask(runtime: EngineRuntime) -> bool:
    client = EngineClient([own_address(runtime.endpoint)], own_options(runtime))
    try:
        return await client.ready()
    finally:
        await client.close()


if __name__ == "__main__":
    sys.exit(main())
