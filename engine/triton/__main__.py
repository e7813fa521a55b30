"""``python -m engine.triton --runtime FILE``: an engine process as ``python -m engine`` is one, with Triton in it.

It listens where the runtime says, exits with status 1 and one line on standard error when the model cannot be loaded or
the engine stops working, dies with the process that started it, and stops on SIGTERM or SIGINT. With
``--write-repository`` it only writes the model repository, for a server that somebody else starts.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from config.environment import load_settings
from config.errors import ConfigError
from config.logs import configure_logging
from config.runtime import EngineRuntime
from engine.__main__ import EXIT_FAILED, EXIT_USAGE, die_with_parent
from engine.errors import EngineError
from engine.triton.repository import write_repository
from engine.triton.server_process import Listeners, serve

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the process and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        configure_logging(load_settings().settings.log, "engine")
        runtime = EngineRuntime.model_validate_json(options.runtime.read_bytes())
        if options.write_repository is not None:
            write_repository(options.write_repository, runtime)
            return 0
    except (OSError, ValidationError) as error:
        sys.stderr.write(f"engine: {options.runtime} cannot be used: {error}\n")
        return EXIT_USAGE
    except ConfigError as error:
        sys.stderr.write(f"engine: {'; '.join(error.problems)}\n")
        return EXIT_USAGE
    die_with_parent()
    try:
        asyncio.run(serve(runtime, Listeners(options.http, options.metrics)))
    except EngineError as error:
        sys.stderr.write(f"engine: {error.message}\n")
        return EXIT_FAILED
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m engine.triton", description="Serve one engine through Triton.")
    parser.add_argument("--runtime", type=Path, required=True, help="JSON file with the engine's settings")
    parser.add_argument("--http", metavar="HOST:PORT", help="where Triton serves HTTP; without it, nowhere")
    parser.add_argument("--metrics", metavar="HOST:PORT", help="where Triton serves its metrics; without it, nowhere")
    parser.add_argument("--write-repository", metavar="FOLDER", type=Path, help="write the model repository and stop")
    return parser


if __name__ == "__main__":
    sys.exit(main())
