"""``python -m launcher`` and the console scripts: ``gemma4-nim``, and one for each command that NVIDIA's NIM has.

This is where a failure becomes one line on standard error and the status of the process. Everything else is imported
once signals are taken care of: on a cold disk that takes seconds, in which somebody may press Ctrl-C.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Callable
from typing import Final

CLICK_USAGE_ERROR: Final = 2
"""The status with which the command line's library ends on arguments that it does not understand."""
INTERRUPTED: Final = 130
"""What shells expect after Ctrl-C."""
TERMINATED: Final = 143
"""The same for SIGTERM."""

logger = logging.getLogger(__name__)


def main() -> None:
    """Run the command line; the process ends with a status of ``launcher.errors.ExitCode``."""
    _run(_gemma4_nim)


def serve() -> None:
    """Run ``nim-serve``."""
    _run(lambda: _command("serve", "nim-serve"))


def list_model_profiles() -> None:
    """Run ``list-model-profiles``."""
    _run(lambda: _command("list-model-profiles"))


def download_to_cache() -> None:
    """Run ``download-to-cache``."""
    _run(lambda: _command("download-to-cache"))


def create_model_store() -> None:
    """Run ``create-model-store``."""
    _run(lambda: _command("create-model-store"))


def check_cache_env() -> None:
    """Run ``check-cache-env``."""
    _run(lambda: _command("check-cache-env"))


def mirror() -> None:
    """Run ``mirror``."""
    _run(lambda: _command("mirror"))


def _gemma4_nim() -> None:
    from launcher.cli import app  # noqa: PLC0415 - see above

    app()


def _command(name: str, program: str | None = None) -> None:
    from launcher.cli import command  # noqa: PLC0415 - see above

    command(name, program)


def _run(work: Callable[[], object]) -> None:
    # Process 1 of a container ignores what it has no handler for; a running server has its own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        _run_reporting(work)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def _run_reporting(work: Callable[[], object]) -> None:
    """Turn whatever ends the work into a line and a status."""
    from config.errors import ConfigError  # noqa: PLC0415 - see above
    from launcher.errors import ExitCode, LaunchError  # noqa: PLC0415

    try:
        work()
    except SystemExit as ended:
        sys.exit(int(ExitCode.BAD_SETTINGS) if ended.code == CLICK_USAGE_ERROR else ended.code)
    except ConfigError as error:
        for problem in error.problems:
            _complain(problem)
        sys.exit(int(ExitCode.BAD_SETTINGS))
    except LaunchError as error:
        _complain(f"{error.message} ({error.remedy})" if error.remedy else error.message)
        sys.exit(int(error.code))
    except Exception:  # the boundary of the process: whatever gets here is our fault, and the log is what helps
        logger.exception("this is a fault of gemma4-nim; please report it with these lines")
        sys.exit(int(ExitCode.INTERNAL))


def _complain(text: str) -> None:
    from config.redaction import Redactor  # noqa: PLC0415 - see above

    with contextlib.suppress(OSError):
        sys.stderr.write(f"gemma4-nim: {Redactor()(text)}\n")


if __name__ == "__main__":
    main()
